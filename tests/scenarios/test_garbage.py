"""Peers that send bytes that are no messages: each is cut off, nothing leaks, others go on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgpack
import pytest

from p2pnode.lab.swarm import LocalSwarm
from p2pnode.net.links import MAX_INBOUND_PER_PEER
from p2pnode.wire.codec import encode
from p2pnode.wire.frames import END, MAX_FRAME_BYTES, MORE, PREFIX, end_frame
from p2pnode.wire.messages import (
    CHAIN,
    CONTROL,
    Opened,
    Ping,
    Pong,
)
from tests.scenarios.bystanders import (
    LATENCY_S,
    assert_nothing_held,
    undisturbed,
)
from tests.support.hostile import (
    SESSION,
    hello,
    hidden,
    hostile_peer,
    raw,
    step,
)

pytestmark = pytest.mark.virtual_time


def _frame(header: bytes, body: bytes = b"", *, flags: int = 0) -> bytes:
    return PREFIX.pack(len(header) + len(body), 7, flags, len(header)) + header + body


def _begun(num_tokens: int) -> bytes:
    """The first frame of a step that announces so many rows of hidden states."""
    header, _ = encode(step(0, hidden(1)))
    fields = msgpack.unpackb(header)
    fields["entry"] = ["float32", [num_tokens, 32]]
    return _frame(msgpack.packb(fields), b"\0" * 1000, flags=MORE)


BEFORE_HELLO = {
    "another protocol": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a ping first": raw(Ping(number=1)),
    "another version": hello(version=2),
    "a hello in pieces": _frame(encode(step(0, hidden(1)))[0], flags=MORE),
    "END at once": end_frame(),
    "a hello that is too long": _frame(b"\x80" * 17_000),
}
AFTER_HELLO = {
    "garbage": b"\xff" * 200,
    "zeros": b"\0" * 200,
    "no msgpack": _frame(b"\xc1\xc1\xc1"),
    "an unknown kind": _frame(msgpack.packb({"kind": "nonsense", "session": SESSION})),
    "no kind": _frame(msgpack.packb([1, 2, 3])),
    "a missing field": _frame(msgpack.packb({"kind": "ping"})),
    "a frame that is too long": PREFIX.pack(MAX_FRAME_BYTES + 1, 1, 0, 10) + b"\0" * 100,
    "a header longer than its frame": PREFIX.pack(10, 1, 0, 11) + b"\0" * 11,
    "unknown flags": PREFIX.pack(0, 1, 8, 0),
    "a message beyond the limit": _begun(300_000),
    "a message that is too short": _begun(100) + PREFIX.pack(5, 7, 0, 0) + b"\0" * 5,
    "a message that is too long": _begun(8) + PREFIX.pack(5000, 7, 0, 0) + b"\0" * 5000,
    "a message in another one": _begun(100) + _begun(100),
    "END in mid message": _begun(100) + end_frame(),
    "END with bytes": PREFIX.pack(4, 0, END, 0) + b"1234",
    "a second hello": hello(),
    "the answer of a node": raw(Opened(session=SESSION, layer=0, epoch=1)),
    "an answer to no ping": raw(Pong(number=9)),
}


@pytest.mark.parametrize("traffic", [CHAIN, CONTROL])
async def test_a_peer_that_speaks_garbage_is_cut_off_and_nobody_else(
    traffic: str, tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        async with undisturbed(swarm, tiny), hostile_peer(swarm) as stranger:
            for what, data in {**BEFORE_HELLO, **AFTER_HELLO}.items():
                for _ in range(3):  # all together far more often than a peer may have links
                    peer = await stranger.dial(node, traffic, greets=what in AFTER_HELLO)
                    peer.stream.write(data)
                    try:
                        await peer.wait_ended()
                    except TimeoutError:
                        pytest.fail(f"not cut off: {what}")
            await stranger.dial(node, traffic)  # no place is taken by what has ended
        await assert_nothing_held(node)


async def test_a_message_that_is_cut_off_in_the_middle_is_forgotten(
    tiny: Path, cache: Path
) -> None:
    message = raw(step(0, hidden(1)))
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        async with undisturbed(swarm, tiny), hostile_peer(swarm) as stranger:
            for length in (1, PREFIX.size - 1, PREFIX.size, len(message) - 1):
                peer = await stranger.dial(node)
                peer.stream.write(message[:length])
                peer.stream.close()
            peer = await stranger.dial(node)
            peer.send(stranger.open())
            assert isinstance(await peer.receive(), Opened)
            peer.stream.write(message[:-1])
            peer.stream.close()  # the session goes with the link
        await assert_nothing_held(node)


@pytest.mark.parametrize("told", [b"", hello()[:-1]])
async def test_who_does_not_greet_in_time_is_cut_off(told: bytes, tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        async with undisturbed(swarm, tiny), hostile_peer(swarm) as stranger:
            peer = await stranger.dial(node, greets=False)
            began = asyncio.get_running_loop().time()
            peer.stream.write(told)
            await peer.wait_ended()
            assert 2.9 < asyncio.get_running_loop().time() - began < 3.5


@pytest.mark.parametrize("greets", [True, False])
async def test_a_peer_with_too_many_links_gets_no_more_and_others_do(
    greets: bool, tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        async with undisturbed(swarm, tiny), hostile_peer(swarm) as stranger:
            kept = [await stranger.dial(node, greets=greets) for _ in range(MAX_INBOUND_PER_PEER)]
            began = asyncio.get_running_loop().time()
            ninth = await stranger.dial(node, greets=False)
            await ninth.wait_ended()
            assert asyncio.get_running_loop().time() - began < 0.5
            if greets:
                kept[0].send(stranger.open())
                assert isinstance(await kept[0].receive(), Opened)
            async with hostile_peer(swarm, 1) as other:
                await other.dial(node)
        await assert_nothing_held(node)
