"""Participants that only gossip, over an in-memory network."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from p2pnode.errors import DaemonDied, PeerError
from p2pnode.gossip.gossip import Gossip
from p2pnode.net.link import Link
from p2pnode.net.links import Links
from p2pnode.net.memory import Line, MemoryNetwork, fake_identity
from p2pnode.tasks import Tasks
from p2pnode.types import Health, Liveness, PeerHealth, PeerId, SwarmView
from tests.support.announcements import announcement

EPOCH_S = 1.8e9
LOOK_EVERY_S = 0.05


class NoSessions:
    """The events of chain links where nothing is served."""

    def on_message(self, link: Link, message: Any) -> None:
        """Nobody should send any."""
        raise AssertionError("no sessions here")

    def on_lost(self, link: Link, error: PeerError) -> None:
        """Nothing hangs on it."""


@dataclasses.dataclass(eq=False)
class Participant:
    """One who gossips; its tests read what it believes."""

    peer: PeerId
    gossip: Gossip
    links: Links
    health: Health
    changes: list[tuple[float, PeerId, PeerHealth]] = dataclasses.field(default_factory=list)

    def sees(self, other: Participant) -> PeerHealth | None:
        """What it knows of another."""
        return self.gossip.snapshot().get(other.peer)

    def believes(self, other: Participant) -> Liveness | None:
        """Whether the other is alive."""
        seen = self.sees(other)
        return seen.liveness if seen else None


class GossipSwarm:
    """Participants and their announcements; ``async with`` owns them."""

    def __init__(self, line: Line | None = None, seed: int = 0) -> None:
        self.network = MemoryNetwork(line=line or Line(latency_s=0.02), seed=seed)
        self.nodes: list[Participant] = []
        self.skew_s: dict[PeerId, float] = {}
        self._tasks = Tasks()

    async def view(self) -> SwarmView:
        """The directory."""
        await asyncio.sleep(0.01)
        return SwarmView(tuple(self._announcements()))

    def _announcements(self) -> list[Any]:
        return [
            dataclasses.replace(
                announcement(fake_identity(number).key_pair),
                addresses=(f"/memory/{number + 1}/p2p/{node.peer}",),
            )
            for number, node in enumerate(self.nodes)
        ]

    async def __aenter__(self) -> GossipSwarm:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._tasks.__aexit__(*error)

    def start(self, count: int) -> None:
        """More nodes."""
        for _ in range(count):
            self._tasks.start(self._run(len(self.nodes)), name=f"node-{len(self.nodes)}")
            self.nodes.append(self._participant(len(self.nodes), is_client=False))

    def _participant(self, number: int, *, is_client: bool) -> Participant:
        identity = fake_identity(number)
        health = Health(peer=identity.peer, sequence=0, issued_at=0.0, kv_free_tokens=4096)
        node: Participant

        def wall_clock() -> float:
            skew_s = self.skew_s.get(identity.peer, 0.0)
            return EPOCH_S + asyncio.get_running_loop().time() + skew_s

        def note(peer: PeerId, health: PeerHealth) -> None:
            node.changes.append((asyncio.get_running_loop().time(), peer, health))

        gossip = Gossip(
            identity.peer,
            None if is_client else identity.sign,
            members=self.view,
            wall_clock=wall_clock,
            describe=None if is_client else lambda: node.health,
            on_change=note,
        )
        links = Links(
            self.network.transport(identity.peer),
            NoSessions(),
            software="test/1",
            connect_timeout_s=3.0,
            heartbeat=(0.5, 2.0),
            control_events=gossip,
        )
        node = Participant(identity.peer, gossip, links, health)
        return node

    async def _run(self, number: int) -> None:
        node = self.nodes[number]
        transport = node.links._transport
        with contextlib.suppress(DaemonDied):  # that is `kill`
            async with transport, node.links, Tasks() as tasks:  # type: ignore[attr-defined]
                tasks.start(node.gossip.run(node.links), name="gossip")
                await node.links.serve()
                await transport.wait_closed()

    @asynccontextmanager
    async def client(self, number: int = 1000) -> AsyncIterator[Participant]:
        """One who only listens."""
        node = self._participant(number, is_client=True)
        transport = node.links._transport
        async with transport, node.links, Tasks() as tasks:  # type: ignore[attr-defined]
            tasks.start(node.gossip.run(node.links), name="gossip")
            yield node

    def kill(self, node: Participant) -> None:
        """SIGKILL."""
        self.network.kill(node.peer)

    async def until_all_known(self) -> None:
        """Return when everybody knows everybody."""
        count = len(self.nodes)
        await until(lambda: all(len(node.gossip.snapshot()) == count for node in self.nodes))

    def received_bytes(self) -> dict[PeerId, int]:
        """So far, each."""
        sums = dict.fromkeys((node.peer for node in self.nodes), 0)
        for (_, receiver), num_bytes in self.network.bytes_sent.items():
            if receiver in sums:
                sums[receiver] += num_bytes
        return sums


async def until(holds: Callable[[], bool], within_s: float = 120.0) -> float:
    """Return when that is so: how long it took."""
    for count in range(round(within_s / LOOK_EVERY_S)):
        if holds():
            return count * LOOK_EVERY_S
        await asyncio.sleep(LOOK_EVERY_S)
    raise AssertionError(f"not so within {within_s:g} s")
