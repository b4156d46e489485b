"""A swarm of a thousand, simulated: what it costs to find everybody, to hear of them, to choose.

The real code over simulated wires: announcements are decoded, judged and routed by `wire`, `dht`
and `routing`; lookups are those of `dht.kademlia` in `lab.overlay`; gossip is `gossip.core`.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from p2pnode.dht.records import RecordJudge, key_of, newest_live, seal_announcement, shard_of
from p2pnode.dht.records import subkey_of as name_of
from p2pnode.gossip.simulation import EPOCH_S, Simulation
from p2pnode.lab.overlay import Overlay, OverlayDirectory, directory_of, join, publish_all
from p2pnode.lab.peers import FINGERPRINT, NUM_LAYERS, announcement_of, part
from p2pnode.lab.virtual_time import run_virtual
from p2pnode.net.identity import Identity
from p2pnode.net.memory import fake_identity
from p2pnode.routing.chain import choose_chain
from p2pnode.routing.needs import Needs
from p2pnode.types import Announcement, Coordinate, Health, PeerHealth, PeerId, SwarmView
from p2pnode.wire.records import decode_announcement, encode_announcement

ROUNDS = 9
NUM_LOOKUPS = 10
RENEWED = 0.25
"""Announcements live 60 s and are renewed every 20; so many are new after 5 s."""
WINDOW_S = 10
SETTLING_S = 2 * WINDOW_S
MEASURED_S = 4 * WINDOW_S

Note = Callable[[str], None]


async def run(num_nodes: int, seed: int, note: Note) -> dict[str, Any]:
    """All figures: `choice`, `lookup`, `gossip`. note: told what is going on.

    Takes minutes for a thousand; cancelling waits for the part under way.
    """
    figures: dict[str, Any] = {"nodes": num_nodes, "seed": seed}
    loop = asyncio.get_running_loop()
    for name, measure in (("choice", choice), ("lookup", lookup), ("gossip", gossip)):
        note(f"{num_nodes} nodes: {name}")
        # Virtual time is a loop of its own, so it needs a thread of its own.
        running = loop.run_in_executor(None, functools.partial(measure, num_nodes, seed))
        try:
            figures |= await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise
    return figures


# --- to choose


@dataclass(frozen=True, slots=True)
class Sealed:
    """A record as a holder keeps it."""

    key: bytes
    subkey: str
    value: bytes
    expires_at: float

    @classmethod
    def of(cls, identity: Identity, announcement: Announcement) -> Sealed:
        """Sign it."""
        value = seal_announcement(identity.key_pair, announcement)
        key = key_of(shard_of(identity.peer))
        return cls(key, name_of(announcement), value, announcement.expires_at)


def choice(num_nodes: int, seed: int = 0, *, rounds: int = ROUNDS) -> dict[str, float]:
    """CPU time, in ms, from announcements as bytes to a chain; medians.

    ``choice_ms``: decode all and choose, no signature checked. ``choice_renewed_ms``: a refresh as
    a client has it every 5 s, by the judge: a record known by its hash is neither decoded nor
    checked again, a quarter is new. ``choice_cold_ms``: by a judge that has seen none, with all
    signatures.
    """
    world = _World(num_nodes, seed)
    plain = [encode_announcement(each) for each in world.announcements(0)]
    first = world.sealed(0, num_nodes)
    renewed = first[: num_nodes - round(RENEWED * num_nodes)]
    renewed = renewed + world.sealed(1, num_nodes)[len(renewed) :]
    times: dict[str, list[float]] = {"decode": [], "choose": [], "renewed": [], "cold": []}
    for _ in range(rounds):
        began = time.thread_time()
        announcements = tuple(map(decode_announcement, plain))
        decoded = time.thread_time()
        world.choose(announcements)
        times["decode"].append(decoded - began)
        times["choose"].append(time.thread_time() - decoded)
        judge = RecordJudge()
        for name, records in (("cold", first), ("renewed", renewed)):
            began = time.thread_time()
            world.choose(_judged(judge, records))
            times[name].append(time.thread_time() - began)
    both = [sum(pair) for pair in zip(times["decode"], times["choose"], strict=True)]
    figures = {f"choice_{name}_ms": median(each) for name, each in times.items()}
    figures |= {"choice_ms": median(both)}
    figures |= {"choice_least_ms": min(both), "choice_most_ms": max(both)}
    return {name: round(1e3 * seconds, 3) for name, seconds in figures.items()}


class _World:
    """Peers with healths and places, and a client."""

    def __init__(self, num_nodes: int, seed: int) -> None:
        self._rng = random.Random(f"scale/{seed}")
        self._identities = [fake_identity(number) for number in range(num_nodes)]
        self._health = {each.peer: PeerHealth(self._told(each.peer)) for each in self._identities}
        self._needs = Needs(
            model="lab",
            fingerprint=FINGERPRINT,
            num_layers=NUM_LAYERS,
            num_tokens=100,
            hidden_size=2048,
            coordinate=self._place(),
        )

    def announcements(self, sequence: int) -> list[Announcement]:
        """Everybody's; a later one has a higher sequence number."""
        return [
            announcement_of(
                each.peer,
                part(number),
                issued_at=EPOCH_S + sequence,
                sequence=1 + sequence,
                latency_s=0.01 + 0.01 * (number * 37 % 101) / 100,
                addresses=(f"/ip4/10.0.0.1/tcp/4001/p2p/{each.peer}",),
            )
            for number, each in enumerate(self._identities)
        ]

    def sealed(self, sequence: int, count: int) -> list[Sealed]:
        """The same, signed."""
        pairs = zip(self._identities, self.announcements(sequence), strict=True)
        return [Sealed.of(*pair) for pair in list(pairs)[:count]]

    def choose(self, announcements: Sequence[Announcement]) -> None:
        """The real choice, drawn as a client does."""
        choose_chain(SwarmView(tuple(announcements), self._health), self._needs, rng=self._rng)

    def _told(self, peer: PeerId) -> Health:
        return Health(
            peer=peer,
            sequence=1,
            issued_at=EPOCH_S,
            num_sessions=self._rng.randrange(4),
            kv_free_tokens=60_000,
            step_times=((1, 0.01, 0.02), (64, 0.1, 0.2)),
            coordinate=self._place(),
        )

    def _place(self) -> Coordinate:
        rng = self._rng
        return Coordinate((rng.gauss(0, 0.05), rng.gauss(0, 0.05), 0.0), rng.random() / 100, 0.2)


def _judged(judge: RecordJudge, records: Sequence[Sealed]) -> tuple[Announcement, ...]:
    now = EPOCH_S + 2.0
    believed = [
        judge.check(each.key, each.subkey, each.value, each.expires_at, now=now) for each in records
    ]
    return newest_live(believed, now=now)


# --- to find


def lookup(num_nodes: int, seed: int = 0, *, lookups: int = NUM_LOOKUPS) -> dict[str, float]:
    """What a newcomer's joining and its reading of the whole directory cost; means.

    ``lookup``: the first; ``lookup_again``: the second, nothing is new; ``lookup_renewed``: then
    `RENEWED` is. Rounds are time in round trips; messages are requests and answers. Blocks.
    """
    return run_virtual(_lookup(num_nodes, seed, lookups))


async def _lookup(num_nodes: int, seed: int, lookups: int) -> dict[str, float]:
    overlay, costs = Overlay(seed=seed), _Costs()
    async with AsyncExitStack() as stack:
        directories: list[OverlayDirectory] = []
        for number in range(num_nodes):
            directory = directory_of(overlay, fake_identity(number))
            await stack.enter_async_context(directory)
            await join(overlay, directory, [each.peer for each in directories])
            directories.append(directory)
        with costs.of(overlay, "publish", num_nodes):
            await publish_all(directories)
        peers = [each.peer for each in directories]
        for number in range(num_nodes, num_nodes + lookups):
            async with directory_of(overlay, fake_identity(number), is_client=True) as reader:
                with costs.of(overlay, "join"):
                    await join(overlay, reader, peers)
                for deed in ("lookup", "lookup_again"):
                    with costs.of(overlay, deed):
                        found = await reader.announcements()
                    costs.add(f"{deed}_found", len(found) / num_nodes)
                if number == num_nodes:
                    await publish_all(directories[: round(RENEWED * num_nodes)], sequence=2)
                    with costs.of(overlay, "lookup_renewed"):
                        await reader.announcements()
    return costs.means()


class _Costs:
    """Messages, bytes and rounds of each kind of deed."""

    def __init__(self) -> None:
        self._all: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        """One more."""
        self._all.setdefault(name, []).append(value)

    @contextmanager
    def of(self, overlay: Overlay, deed: str, share: int = 1) -> Iterator[None]:
        """What happens meanwhile is that deed, done by ``share`` participants."""
        clock = asyncio.get_running_loop().time
        calls, size, began = overlay.traffic.num_calls, overlay.traffic.num_bytes, clock()
        yield
        self.add(f"{deed}_messages", 2 * (overlay.traffic.num_calls - calls) / share)
        self.add(f"{deed}_bytes", (overlay.traffic.num_bytes - size) / share)
        self.add(f"{deed}_rounds", (clock() - began) / overlay.rtt_s)

    def means(self) -> dict[str, float]:
        """By their names."""
        return {name: round(mean(values), 3) for name, values in self._all.items()}


# --- to hear


def gossip(num_nodes: int, seed: int = 0, *, seconds: int = MEASURED_S) -> dict[str, float]:
    """Messages and bytes that a node receives per second while what all tell changes all the time.

    ``bytes_...`` and ``messages_...`` are means, ``window_...`` is over nodes and windows of 10 s,
    after the swarm has settled; ``joining_most`` is over those before, when all join at once.
    Blocks.
    """
    swarm = _busy_swarm(num_nodes, seed)
    joining = _windows(swarm, SETTLING_S)
    messages, size = swarm.num_messages, sum(swarm.received_bytes)
    windows = _windows(swarm, seconds)
    known = [len(core.known.book) / num_nodes for core in swarm.cores]
    per = num_nodes * seconds
    return {
        "gossip_messages_per_node_s": round((swarm.num_messages - messages) / per, 3),
        "gossip_bytes_per_node_s": round((sum(swarm.received_bytes) - size) / per, 1),
        "gossip_window_p50": round(median(windows), 1),
        "gossip_window_p95": round(sorted(windows)[int(0.95 * len(windows))], 1),
        "gossip_window_most": round(max(windows), 1),
        "gossip_joining_most": round(max(joining), 1),
        "gossip_known": round(mean(known), 4),
    }


def _busy_swarm(num_nodes: int, seed: int) -> Simulation:
    identities = [fake_identity(number) for number in range(num_nodes)]

    def describe(number: int, now: float) -> Health:
        load = (7 * int(now) + number) % 9
        return Health(
            peer=identities[number].peer,
            sequence=0,
            issued_at=0.0,
            num_sessions=load,
            queue_depth=load,
            kv_free_tokens=60_000,
            step_times=((1, 0.01, 0.02), (64, 0.1, 0.2)),
        )

    return Simulation(
        [(each.peer, each.sign) for each in identities],
        describe=describe,
        rtt_s=lambda _, __: 0.04,
        seed=seed,
    )


def _windows(swarm: Simulation, seconds: int) -> list[float]:
    """Bytes per second that each node receives in each window of that time."""
    rates: list[float] = []
    for _ in range(seconds // WINDOW_S):
        before = list(swarm.received_bytes)
        swarm.run(WINDOW_S)
        pairs = zip(before, swarm.received_bytes, strict=True)
        rates += [(after - was) / WINDOW_S for was, after in pairs]
    return rates
