"""Ten thousand digests per second from one peer: what they cost, and whether others are heard.

Real links and gossip over the in-memory network; all digests are well formed, signed and new.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from p2pnode.errors import DaemonDied, PeerError, PeerLost
from p2pnode.gossip.core import PERIOD_S
from p2pnode.gossip.digest import seal_digest
from p2pnode.gossip.gossip import Gossip
from p2pnode.gossip.messages import Sync
from p2pnode.lab.peers import announcement_of
from p2pnode.lab.virtual_time import run_virtual
from p2pnode.net.identity import Identity
from p2pnode.net.link import Link
from p2pnode.net.links import Links
from p2pnode.net.memory import Line, MemoryNetwork, fake_identity
from p2pnode.net.transport import ByteStream, Transport
from p2pnode.tasks import Tasks
from p2pnode.types import Health, SwarmView
from p2pnode.wire.frames import frames
from p2pnode.wire.messages import CONTROL, Hello

EPOCH_S = 1.8e9
RATE_PER_S = 10_000
NUM_NODES = 4
LATENCY_S = 0.02
SETTLING_S = 5.0
LASTS_S = 4.0
LOOK_EVERY_S = 0.02
PATIENCE_S = 20.0
BATCH_S = 0.01
PACKED = (1, 40)
"""Digests per message."""
NEWS = 3


@dataclass(frozen=True, slots=True)
class Flooded:
    """What came of it."""

    core_share: float
    """CPU time per second, of the costlier way to pack the digests; the flooder's own included."""
    shares: dict[int, float]
    """The same by digests per message."""
    seen_after_s: float
    """How long an honest peer's change of health took to be seen meanwhile; the longer one."""
    period_s: float = PERIOD_S


def run_flood(seed: int = 0, *, rate_per_s: int = RATE_PER_S) -> Flooded:
    """Flood one of a few members, with one digest per message and with many. Blocks."""
    mallory = fake_identity(666 + seed)
    shares, delays = {}, []
    for per_message in PACKED:
        messages = _flood(mallory, per_message, rate_per_s // 4)
        running = _flooded(mallory, messages, rate_per_s / per_message)
        shares[per_message], seen_after_s = run_virtual(running)
        delays.append(seen_after_s)
    return Flooded(max(shares.values()), shares, max(delays))


async def _flooded(
    mallory: Identity, messages: list[bytes], rate_per_s: float
) -> tuple[float, float]:
    """CPU time per second of the flood, and how long news of an honest peer take in it."""
    clock = asyncio.get_running_loop().time
    async with _swarm(NUM_NODES) as members, Tasks() as tasks:
        await asyncio.sleep(SETTLING_S)
        victim, honest = members[0], members[1]
        began_s = time.thread_time()
        await asyncio.sleep(LASTS_S)
        quiet_s = time.thread_time() - began_s
        async with members[0].network.transport(mallory.peer) as transport:
            began_s, began = time.thread_time(), clock()
            attack = tasks.start(_attack(transport, victim, messages, rate_per_s), name="flood")
            await asyncio.sleep(1.0)
            changed_at = clock()
            honest.health = dataclasses.replace(honest.health, num_sessions=NEWS)
            for _ in range(round(PATIENCE_S / LOOK_EVERY_S)):
                if victim.sessions_of(honest) == NEWS:
                    break
                await asyncio.sleep(LOOK_EVERY_S)
            seen_after_s = clock() - changed_at
            await asyncio.sleep(max(0.0, began + LASTS_S - clock()))
            share = (time.thread_time() - began_s - quiet_s) / (clock() - began)
            attack.cancel()
            await asyncio.wait([attack])
    return max(0.0, share), seen_after_s


async def _attack(
    transport: Transport, victim: _Member, messages: list[bytes], rate_per_s: float
) -> None:
    """Write at the rate, on a new stream whenever one is ended, until cancelled."""
    batch = max(1, round(rate_per_s * BATCH_S))
    while True:
        await transport.connect(victim.peer, victim.addresses)
        stream: ByteStream = await transport.open_stream(victim.peer, CONTROL)
        try:
            stream.write(_hello())
            for start in range(0, len(messages), batch):
                for message in messages[start : start + batch]:
                    stream.write(message)
                await asyncio.sleep(batch / rate_per_s)
        except PeerLost:
            await asyncio.sleep(batch / rate_per_s)
        finally:
            stream.close()


def _flood(mallory: Identity, per_message: int, count: int) -> list[bytes]:
    """Messages that hold so many digests together, each newer than the one before."""
    digests = [
        seal_digest(
            Health(peer=mallory.peer, sequence=number + 1, issued_at=EPOCH_S), mallory.sign
        ).data
        for number in range(count)
    ]
    packs = (tuple(digests[at : at + per_message]) for at in range(0, count, per_message))
    return [
        b"".join(
            bytes(piece)
            for piece in frames(
                Sync(turn=3, is_whole=False, held=b"", place=b"", digests=pack, suspicions=()), 2
            )
        )
        for pack in packs
    ]


def _hello() -> bytes:
    greeting = Hello(version=1, software="flood/1", nonce=b"n" * 16, credentials=b"")
    return b"".join(bytes(piece) for piece in frames(greeting, 1))


# --- those who only gossip


class _NoSessions:
    """The events of chain links where nothing is served."""

    def on_message(self, link: Link, message: Any) -> None:
        """Nobody sends any."""

    def on_lost(self, link: Link, error: PeerError) -> None:
        """Nothing hangs on it."""


class _Member:
    """One who gossips."""

    def __init__(self, network: MemoryNetwork, identity: Identity, members: list[_Member]) -> None:
        self.network = network
        self.peer = identity.peer
        self.addresses: tuple[str, ...] = ()
        self.health = Health(peer=identity.peer, sequence=0, issued_at=0.0, kv_free_tokens=4096)
        self._members = members
        loop = asyncio.get_running_loop()
        self.gossip = Gossip(
            identity.peer,
            identity.sign,
            members=self._view,
            wall_clock=lambda: EPOCH_S + loop.time(),
            describe=lambda: self.health,
        )

    def sessions_of(self, other: _Member) -> int | None:
        """What it has heard of another."""
        seen = self.gossip.snapshot().get(other.peer)
        return seen.health.num_sessions if seen else None

    async def run(self) -> None:
        """Take part until cancelled."""
        transport = self.network.transport(self.peer)
        links = Links(
            transport,
            _NoSessions(),
            software="lab/1",
            connect_timeout_s=3.0,
            heartbeat=(0.5, 2.0),
            control_events=self.gossip,
        )
        with contextlib.suppress(DaemonDied):
            async with transport, links, Tasks() as tasks:
                self.addresses = transport.addresses
                tasks.start(self.gossip.run(links), name="gossip")
                await links.serve()
                await transport.wait_closed()

    async def _view(self) -> SwarmView:
        now = EPOCH_S + asyncio.get_running_loop().time()
        return SwarmView(
            tuple(
                announcement_of(each.peer, issued_at=now, addresses=each.addresses)
                for each in self._members
            )
        )


@asynccontextmanager
async def _swarm(count: int) -> AsyncIterator[list[_Member]]:
    network = MemoryNetwork(line=Line(latency_s=LATENCY_S))
    members: list[_Member] = []
    async with Tasks() as tasks:
        for number in range(count):
            members.append(_Member(network, fake_identity(number), members))
        for member in members:
            tasks.start(member.run(), name=f"member-{member.peer.short}")
        await asyncio.sleep(0)
        yield members
