"""Peers that are slow on purpose, hoard, or come in crowds: each is stopped, others go on."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import msgpack
import pytest

from p2pnode.errors import PeerLost
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.net.links import MAX_INBOUND, MAX_INBOUND_PER_PEER
from p2pnode.net.patience import FRAME_WITHIN_S, TAKEN_WITHIN_S
from p2pnode.wire.codec import encode
from p2pnode.wire.frames import MORE, PREFIX
from p2pnode.wire.messages import CONTROL, Opened, Ping, Pong
from tests.scenarios.bystanders import LATENCY_S, PROMPT, assert_nothing_held, undisturbed
from tests.support.hostile import RawPeer, hidden, hostile_peer, ids, raw, step

pytestmark = pytest.mark.virtual_time

CROWD = 1000


async def test_a_step_that_comes_byte_by_byte_is_not_waited_for(tiny: Path, cache: Path) -> None:
    clock = asyncio.get_running_loop().time
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        async with hostile_peer(swarm) as stranger:
            peer = await stranger.dial(node)
            peer.send(stranger.open())
            assert isinstance(await peer.receive(), Opened)
            began = clock()
            with pytest.raises(PeerLost):
                for byte in raw(step(0, ids(*PROMPT))):
                    peer.stream.write(bytes([byte]))
                    await asyncio.sleep(1.0)
            assert FRAME_WITHIN_S < clock() - began < FRAME_WITHIN_S + 3.0
        await assert_nothing_held(node)


async def test_who_asks_and_never_reads_the_answers_is_cut_off(tiny: Path, cache: Path) -> None:
    clock = asyncio.get_running_loop().time
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        async with undisturbed(swarm, tiny), hostile_peer(swarm) as stranger:
            peer = await stranger.dial(node, CONTROL)
            peer.stream.write(b"".join(raw(Ping(number=number)) for number in range(20_000)))
            began = clock()
            with pytest.raises(PeerLost):
                while True:
                    await asyncio.sleep(1.0)
                    peer.send(Ping(number=1))
            assert clock() - began < TAKEN_WITHIN_S + 3.0
        await assert_nothing_held(node)


def begun(num_rows: int) -> bytes:
    """The first frame of a step that announces so many rows of 32 floats."""
    header, _ = encode(step(0, hidden(1)))
    fields = {**msgpack.unpackb(header), "entry": ["float32", [num_rows, 32]]}
    packed: bytes = msgpack.packb(fields)
    return PREFIX.pack(len(packed) + 1000, 7, MORE, len(packed)) + packed + bytes(1000)


async def test_who_begins_messages_and_ends_none_is_cut_off_before_others(
    tiny: Path, cache: Path
) -> None:
    """Each of nine links begins 32 MiB: together more than a node holds for everybody."""
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        async with undisturbed(swarm, tiny), hostile_peer(swarm) as stranger:
            async with hostile_peer(swarm, 1) as modest:
                one = await modest.dial(node)
                one.stream.write(begun(250_000))
                peers = [await stranger.dial(node) for _ in range(MAX_INBOUND_PER_PEER)]
                for peer in peers:
                    peer.stream.write(begun(250_000))
                for peer in peers:
                    await peer.wait_ended()
                one.stream.write(b"\0")  # raises when its link has ended
        await assert_nothing_held(node)


async def test_a_thousand_links_of_strangers_leave_the_others_what_they_had(
    tiny: Path, cache: Path
) -> None:
    """Half of them greet and ping, half say nothing at all; some peers want more than others."""
    clock = asyncio.get_running_loop().time
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        async with swarm.client() as client, AsyncExitStack() as strangers:
            alone_s = -clock()
            alone = await client.generate(PROMPT, max_tokens=12)
            alone_s += clock()
            for number in range(CROWD // MAX_INBOUND_PER_PEER):
                stranger = await strangers.enter_async_context(hostile_peer(swarm, number))
                for turn in range(MAX_INBOUND_PER_PEER):
                    await stranger.dial(node, CONTROL, greets=turn % 2 == 0)
            crowd_s = -clock()
            crowded = await client.generate(PROMPT, max_tokens=12)
            crowd_s += clock()
            assert crowded.token_ids == alone.token_ids
            assert crowd_s <= 2 * alone_s
            await asyncio.sleep(4.0)  # those that said nothing are gone
            late = await stranger.dial(node, CONTROL)
            assert await _answers(late)
        assert CROWD <= MAX_INBOUND


async def _answers(peer: RawPeer) -> bool:
    peer.send(Ping(number=5))
    pong: Pong = await peer.receive()
    return pong.number == 5


async def test_who_takes_part_in_a_session_is_protected_while_it_lasts(
    tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        first, last = await swarm.start("0-4", "5-8")
        ends = [swarm.network.transports[node.peer] for node in (first, last)]
        async with swarm.client() as client, asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(client.generate(PROMPT, max_tokens=24))
            await asyncio.sleep(0.5)
            assert not asking.done()
            (asker,) = swarm.client_peers
            assert ends[0].protected == {asker, last.peer}
            assert ends[1].protected == {asker, first.peer}
            await asking
            await asyncio.sleep(0.2)
            assert [end.protected for end in ends] == [set(), set()]
