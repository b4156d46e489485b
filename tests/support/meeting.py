"""A world of nodes for whoever joins: no network, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from p2pnode.errors import DaemonDied, JoinFailed, PeerLost, PeerTimeout
from p2pnode.net.memory import fake_peer_id
from p2pnode.swarm.join import Joiner
from p2pnode.swarm.sources import JoinSources
from p2pnode.types import PeerId

OWN, A, B, C, D = (fake_peer_id(number) for number in range(5))


def at(peer: PeerId) -> str:
    return f"/ip4/192.0.2.1/tcp/4001/p2p/{peer}"


def now() -> float:
    return asyncio.get_running_loop().time()


class FakeMeeting:
    """A world of nodes that live, are dead, freeze or have a wrong clock; islands of friends."""

    def __init__(self, *living: PeerId) -> None:
        self.living = set(living)
        self.daemon_is_dead = False
        self.frozen: set[PeerId] = set()
        self.skewed: set[PeerId] = set()
        self.friends: dict[PeerId, tuple[PeerId, ...]] = {}
        self.tried: list[PeerId] = []
        self._met: list[PeerId] = []

    @property
    def peers(self) -> tuple[PeerId, ...]:
        return tuple(peer for peer in self._met if peer in self.living)

    def addresses_of(self, peer: PeerId) -> tuple[str, ...]:
        return (at(peer),)

    async def meet(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        self.tried.append(peer)
        if self.daemon_is_dead:
            raise DaemonDied("p2pd is gone")
        if peer in self.frozen:
            await asyncio.sleep(3.0)
            raise PeerTimeout(peer, "no answer in 3 s")
        if peer not in self.living or at(peer) not in addresses:
            raise PeerLost(peer, "connection refused")
        await asyncio.sleep(0.02)
        if peer in self.skewed:
            raise JoinFailed(f"this machine's clock is 10.0 s ahead of that of peer {peer.short}")
        self._met.append(peer)

    async def explore(self) -> None:
        for peer in tuple(self._met):
            new = [each for each in self.friends.get(peer, ()) if each not in self._met]
            self._met += new


def joiner_of(
    meeting: FakeMeeting, home: Path, *explicit: str, public: tuple[str, ...] = ()
) -> Joiner:
    sources = JoinSources(home=home, explicit=explicit, public=public)
    return Joiner(meeting, sources, own=OWN, wall_clock=now)


@asynccontextmanager
async def running(joiner: Joiner) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(joiner.run(), name="joiner")
        try:
            yield
        finally:
            task.cancel()
