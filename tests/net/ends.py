"""Peers with links over the in-memory transport, and what their links say."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from p2pnode.errors import PeerError, PeerMisbehaved
from p2pnode.net.link import Link
from p2pnode.net.links import Links
from p2pnode.net.memory import Line, MemoryNetwork, fake_peer_id
from p2pnode.net.memory_transport import MemoryTransport
from p2pnode.types import Tensor
from p2pnode.wire.messages import Close, Step

NEAR, FAR, THIRD = (fake_peer_id(number) for number in range(3))
LATENCY_S = 0.01


class Recorder:
    """Keeps what links say, and when."""

    def __init__(self) -> None:
        self.messages: list[tuple[float, Any]] = []
        self.lost: list[tuple[Link, PeerError]] = []
        self._changed = asyncio.Event()

    def on_message(self, link: Link, message: Any) -> None:
        self.messages.append((asyncio.get_running_loop().time(), message))
        self._changed.set()
        if isinstance(message, Close) and message.layer == 666:
            raise PeerMisbehaved(link.peer, "sent the number")

    def on_lost(self, link: Link, error: PeerError) -> None:
        self.lost.append((link, error))
        self._changed.set()

    async def until(self, num_messages: int = 0, num_lost: int = 0) -> None:
        async with asyncio.timeout(60):
            while len(self.messages) < num_messages or len(self.lost) < num_lost:
                self._changed.clear()
                await self._changed.wait()


class End:
    """A peer with links."""

    def __init__(self, transport: MemoryTransport) -> None:
        self.transport = transport
        self.seen = Recorder()
        self.links = Links(
            transport, self.seen, software="test/1", connect_timeout_s=3.0, heartbeat=(0.5, 2.0)
        )

    async def connect(self, other: End) -> Link:
        return await self.links.connect(other.transport.peer, other.transport.addresses)


@asynccontextmanager
async def ends(network: MemoryNetwork) -> AsyncIterator[tuple[End, End]]:
    """Two peers that accept links."""
    async with network.transport(NEAR) as one, network.transport(FAR) as two:
        near, far = End(one), End(two)
        async with near.links, far.links:
            await near.links.serve()
            await far.links.serve()
            yield near, far


def network(**line: Any) -> MemoryNetwork:
    return MemoryNetwork(line=Line(**{"latency_s": LATENCY_S, **line}))


def small(number: int = 0) -> Close:
    return Close(session=b"s" * 16, layer=number)


def large(num_bytes: int) -> Step:
    """A step with a tensor of that size."""
    entry = Tensor("float32", (1, num_bytes // 4), os.urandom(num_bytes))
    return Step(session=b"s" * 16, layer=0, epoch=1, position=0, entry=entry)
