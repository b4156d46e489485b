"""py-libp2p, an independent implementation, dials a real transport over TCP, Noise and yamux.

It runs on trio, so in a thread with its own loop.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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

from p2pnode.net.identity import Identity, peer_of, public_key
from p2pnode.net.libp2p_transport import P2PTransport
from p2pnode.net.transport import ByteStream

ECHO = "/test/echo/1"
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Seen:
    """What py-libp2p found out about us."""

    own_peer: str
    pings: int
    protocols: tuple[str, ...]
    public_key: bytes
    echoed: bytes


@pytest.fixture
def run() -> Iterator[Path]:
    """A folder with a short path: pytest's own is too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="p2p-", dir="/tmp") as folder:
        yield Path(folder)


async def test_py_libp2p_pings_identifies_and_talks_to_us(run: Path) -> None:
    opened_by: list[str] = []

    async def echo(stream: ByteStream) -> None:
        opened_by.append(stream.peer)
        stream.write(await stream.read_exactly(4))
        await stream.drain()
        await stream.read_exactly(1)

    identity = Identity.ephemeral()
    async with P2PTransport(identity, run, host="127.0.0.1") as transport:
        await transport.serve(ECHO, echo)
        address = transport.addresses[0]
        seen = await asyncio.to_thread(trio.run, _visit, address)
    assert seen.pings == 3
    assert ECHO in seen.protocols
    assert peer_of(seen.public_key[4:]) == identity.peer
    assert seen.public_key[4:] == public_key(identity.peer)
    assert seen.echoed == b"ping"
    assert opened_by == [seen.own_peer]


async def _visit(address: str) -> Seen:
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
            stream = await host.new_stream(node.peer_id, [TProtocol(ECHO)])
            await stream.write(b"ping")
            echoed = await stream.read(4)
            await stream.close()
            await host.disconnect(node.peer_id)
            return Seen(
                own_peer=host.get_id().to_base58(),
                pings=len(pings),
                protocols=tuple(told.protocols),
                public_key=told.public_key,
                echoed=echoed,
            )
