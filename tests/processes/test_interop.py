"""An independent client: py-libp2p dials a real node over TCP, Noise and yamux, and generates.

Nothing of ours is used on its side but the codec of the wire. It runs on trio, so in no loop of
ours.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.ping import PingService
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.identify import parse_identify_response
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.utils.varint import read_length_prefixed_protobuf
from multiaddr import Multiaddr

from p2pnode.model.reference import greedy
from p2pnode.model.source import find_model
from p2pnode.model.text import TextCodec
from p2pnode.net.identity import peer_of
from p2pnode.types import LayerRange, Sampling, Tensor
from p2pnode.wire.frames import PREFIX, Assembler, Prefix, end_frame, frames
from p2pnode.wire.messages import (
    CHAIN,
    CONTROL,
    Close,
    Closed,
    Hello,
    Open,
    Opened,
    Progress,
    Result,
    Step,
)
from tests.support.swarms import served, short_home

pytestmark = pytest.mark.processes

PROMPT = "Once upon a time"
NUM_TOKENS = 12
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Seen:
    """What py-libp2p found out."""

    pings: int
    protocols: tuple[str, ...]
    public_key: bytes
    token_ids: list[int]
    closed: Closed


class Session:
    """`/p2pnode/chain/1`, spoken by hand."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._assembler = Assembler()
        self._channel = 0

    async def send(self, message: object) -> None:
        self._channel += 1
        await self._stream.write(b"".join(frames(message, self._channel)))

    async def receive(self, kind: type) -> Any:
        """The next message of that kind; progress is passed over."""
        while True:
            prefix = Prefix.parse(await self._read(PREFIX.size))
            message = self._assembler.add(prefix, await self._read(prefix.num_bytes))
            if isinstance(message, kind):
                return message
            assert message is None or isinstance(message, Progress), message

    async def end(self) -> None:
        await self._stream.write(end_frame())

    async def _read(self, num_bytes: int) -> bytes:
        data = b""
        while len(data) < num_bytes:
            piece = await self._stream.read(num_bytes - len(data))
            assert piece, "the node has closed the stream"
            data += piece
        return data


def test_py_libp2p_pings_identifies_and_runs_a_whole_session(cache: Path) -> None:
    files = find_model(None, cache=cache)
    prompt_ids = TextCodec.load(files.folder).encode(PROMPT)
    with short_home() as home, served(home, "0-26") as (node,):
        seen = trio.run(_visit, node.address, files.fingerprint, prompt_ids)
        opened = node.command.wait_for("session_opened")
        closed = node.command.wait_for("session_closed")
        assert opened["session"] == closed["session"] == seen.closed.session.hex()
        assert peer_of(seen.public_key[4:]) == node.peer
    assert seen.pings == 3
    assert {CHAIN, CONTROL} <= set(seen.protocols)
    assert seen.token_ids == greedy(files.folder, prompt_ids, NUM_TOKENS)
    assert seen.closed.num_steps == NUM_TOKENS
    assert seen.closed.compute_s > 0


async def _visit(address: str, fingerprint: str, prompt_ids: list[int]) -> Seen:
    keys = create_new_key_pair()
    noise = NoiseTransport(keys, noise_privkey=create_new_noise_key_pair().private_key)
    host = new_host(key_pair=keys, sec_opt={NOISE: noise}, muxer_preference="YAMUX")
    with trio.fail_after(TIMEOUT_S):
        async with host.run(listen_addrs=[]):
            node = info_from_p2p_addr(Multiaddr(address))
            await host.connect(node)
            pings = await PingService(host).ping(node.peer_id, ping_amt=3)
            stream = await host.new_stream(node.peer_id, [IDENTIFY])
            told = parse_identify_response(
                await read_length_prefixed_protobuf(stream, use_varint_format=True)
            )
            stream = await host.new_stream(node.peer_id, [TProtocol(CHAIN)])
            token_ids, closed = await _generate(Session(stream), fingerprint, prompt_ids)
            await host.disconnect(node.peer_id)
            return Seen(len(pings), tuple(told.protocols), told.public_key, token_ids, closed)


async def _generate(
    session: Session, fingerprint: str, prompt_ids: list[int]
) -> tuple[list[int], Closed]:
    name = os.urandom(16)
    await session.send(Hello(version=1, software="other/1", nonce=os.urandom(16), credentials=b""))
    assert (await session.receive(Hello)).version == 1
    await session.send(
        Open(
            session=name,
            epoch=1,
            fingerprint=fingerprint,
            numerics="float32",
            layers=LayerRange(0, 27),
            max_tokens=len(prompt_ids) + NUM_TOKENS,
            previous=None,
            next=None,
            next_addresses=(),
            send_from=len(prompt_ids) - 1,
            sampling=Sampling(),
            token_ids=None,
        )
    )
    assert (await session.receive(Opened)).session == name
    known, fed = list(prompt_ids), 0
    while len(known) < len(prompt_ids) + NUM_TOKENS:
        due = np.array(known[fed:], np.int64)
        entry = Tensor("int64", (len(due),), due.tobytes())
        await session.send(Step(session=name, layer=0, epoch=1, position=fed, entry=entry))
        fed = len(known)
        result = await session.receive(Result)
        assert result.position == fed - 1
        known += result.token_ids
    await session.send(Close(session=name, layer=0))
    closed = await session.receive(Closed)
    await session.end()
    return known[len(prompt_ids) :], closed
