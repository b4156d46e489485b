"""Peers of a `LocalSwarm` that break the rules: raw clients, and servers broken in one way each."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from p2pnode.dht.memory import MemoryDirectory
from p2pnode.errors import PeerError, PeerLost
from p2pnode.lab.swarm import LabNode, LocalSwarm
from p2pnode.net.link import Link
from p2pnode.net.links import Links
from p2pnode.net.memory import fake_identity
from p2pnode.net.transport import ByteStream
from p2pnode.tasks import Tasks
from p2pnode.types import LayerRange, PeerId, Sampling, Tensor
from p2pnode.wire.frames import PREFIX, Assembler, Prefix, frames
from p2pnode.wire.messages import CHAIN, Fault, Hello, Open, Opened, Step

SESSION = b"0123456789abcdef"
HOSTILE = 5000
"""Number of the first hostile identity; nodes and clients have lower ones."""


def raw(message: object, channel: int = 1) -> bytes:
    """All frames of a message."""
    return b"".join(frames(message, channel))


def hello(version: int = 1) -> bytes:
    """A greeting."""
    return raw(Hello(version=version, software="raw/1", nonce=b"n" * 16, credentials=b""))


def ids(*token_ids: int) -> Tensor:
    """int64 [tokens]."""
    return Tensor("int64", (len(token_ids),), np.array(token_ids, np.int64).tobytes())


def hidden(tokens: int, value: float = 0.5, *, size: int = 32, dtype: str = "float32") -> Tensor:
    """[tokens, size], every element ``value``."""
    kind = {"float32": np.float32, "float16": np.float16, "int64": np.int64}[dtype]
    return Tensor(dtype, (tokens, size), np.full((tokens, size), value, kind).tobytes())


class RawPeer:
    """A peer that writes messages, or any bytes, by hand on one stream; and reads the answers."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self._assembler = Assembler()
        self._channel = 0

    def send(self, message: object) -> None:
        """Write a whole message."""
        self._channel += 1
        self.stream.write(raw(message, self._channel))

    async def receive(self) -> Any:
        """The next message; raises PeerLost when the stream has ended."""
        async with asyncio.timeout(60):
            while True:
                prefix = Prefix.parse(await self.stream.read_exactly(PREFIX.size))
                data = await self.stream.read_exactly(prefix.num_bytes)
                message = self._assembler.add(prefix, data)
                if message is not None:
                    return message

    async def answer(self, *kinds: type) -> Any:
        """The next message of one of these kinds."""
        while True:
            message = await self.receive()
            if isinstance(message, kinds):
                return message

    async def wait_ended(self) -> None:
        """Return when the other side has ended the stream."""
        async with asyncio.timeout(60):
            try:
                while True:
                    await self.stream.read_exactly(1)
            except PeerLost:
                return


@dataclasses.dataclass(frozen=True)
class Stranger:
    """A participant without manners; `hostile_peer` makes it."""

    swarm: LocalSwarm
    transport: Any

    @property
    def peer(self) -> PeerId:
        return PeerId(self.transport.peer)

    async def dial(self, node: LabNode, traffic: str = CHAIN, *, greets: bool = True) -> RawPeer:
        """A new stream to a node."""
        await self.transport.connect(node.peer, self.swarm.network.transports[node.peer].addresses)
        raw_peer = RawPeer(await self.transport.open_stream(node.peer, traffic))
        if greets:
            raw_peer.stream.write(hello())
            await raw_peer.answer(Hello)
        return raw_peer

    def open(self, **changes: Any) -> Open:
        """A good `Open` of one hop that runs everything."""
        spec = self.swarm.spec
        good: dict[str, Any] = {
            "session": SESSION,
            "epoch": 1,
            "fingerprint": spec.fingerprint,
            "numerics": self.swarm.dtype,
            "layers": LayerRange(0, spec.num_layers),
            "max_tokens": 16,
            "previous": None,
            "next": None,
            "next_addresses": (),
            "send_from": 0,
            "sampling": Sampling() if changes.get("next") is None else None,
            "token_ids": None,
        }
        return Open(**{**good, **changes})


def step(position: int, entry: Tensor, *, layer: int = 0, epoch: int = 1, **changes: Any) -> Step:
    """A step of `SESSION`."""
    fields: dict[str, Any] = {"session": SESSION, "layer": layer, "epoch": epoch}
    return Step(**{**fields, **changes}, position=position, entry=entry)


@asynccontextmanager
async def hostile_peer(swarm: LocalSwarm, number: int = 0) -> AsyncIterator[Stranger]:
    """A place on the network for somebody who follows no rules."""
    async with swarm.network.transport(fake_identity(HOSTILE + number).peer) as transport:
        yield Stranger(swarm, transport)


Act = Callable[["BrokenServer", Link, Any], None]
"""What a broken server does with a message."""


class BrokenServer:
    """Announces layers and greets as it should, and does with each message what ``act`` does."""

    def __init__(self, act: Act) -> None:
        self._act = act
        self.num_asked = 0
        self.links: Links
        self.tasks = Tasks()
        self.opened: dict[bytes, Open] = {}
        self.clients: dict[bytes, Link] = {}

    def on_message(self, link: Link, message: Any) -> None:
        """Note sessions, then misbehave (`LinkEvents`)."""
        if isinstance(message, Open):
            self.num_asked += 1
            self.opened[message.session] = message
            self.clients[message.session] = link
        self._act(self, link, message)

    def on_lost(self, link: Link, error: PeerError) -> None:
        """Nothing to do (`LinkEvents`)."""

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that takes a while; failing at it is no surprise."""

        async def run() -> None:
            with contextlib.suppress(PeerError):
                await work

        self.tasks.start(run(), name="misbehave")


@asynccontextmanager
async def broken_server(
    swarm: LocalSwarm, layers: str, act: Act, number: int = 0
) -> AsyncIterator[BrokenServer]:
    """A peer that claims to be the fastest for these layers, and fails in one stated way."""
    identity = fake_identity(HOSTILE + number)
    server = BrokenServer(act)
    async with swarm.network.transport(identity.peer) as transport:
        links = Links(
            transport, server, software="broken/1", connect_timeout_s=3.0, heartbeat=(0.5, 2.0)
        )
        async with links, server.tasks:
            server.links = links
            await links.serve()
            directory = MemoryDirectory(swarm.dht, identity.key_pair)
            (honest, *_) = await directory.announcements()
            now = swarm.wall_clock()
            claimed = LayerRange.parse(layers)
            lie = dataclasses.replace(
                honest,
                peer=identity.peer,
                layers=claimed,
                latency_s=1e-6,
                offers_embedding=claimed.start == 0,
                offers_head=claimed.stop == swarm.spec.num_layers,
                addresses=transport.addresses,
                sequence=1,
                issued_at=now,
                expires_at=now + 80.0,
            )
            await directory.publish(lie)
            yield server


def accept(link: Link, message: Open) -> None:
    """Say yes."""
    layer = message.layers.start
    link.send(Opened(session=message.session, layer=layer, epoch=message.epoch))


def fault(message: Any, kind: str, blamed: PeerId | None = None) -> Fault:
    """A complaint about a step or an open."""
    layer = message.layers.start if isinstance(message, Open) else message.layer
    return Fault(
        session=message.session,
        layer=layer,
        epoch=message.epoch,
        fault=kind,
        blamed=blamed,
        detail="made up",
    )
