"""Strangers with many keys in few networks: what they can hide of the directory, simulated.

The directory is the real one (`lab.overlay`). Sybils enter every routing table, take every record,
list what they have taken, give none of it back (or forged ones), and name only each other as
neighbours. Their place follows from their key, so they make many keys and keep those that lie where
they want to be (`Aim`).
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from p2pnode.dht.backend import DHTID, P2PContext, dht_pb2
from p2pnode.dht.ids import node_id_of, to_hivemind
from p2pnode.dht.protocol import P2PNodeDirectory2
from p2pnode.dht.records import ALL_KEYS, ID_BYTES, id_of, seal_announcement
from p2pnode.dht.table import BUCKET_SIZE
from p2pnode.lab.overlay import EPOCH_S, Overlay, OverlayDirectory, directory_of, join, publish_all
from p2pnode.lab.peers import announcement_of
from p2pnode.lab.virtual_time import run_virtual
from p2pnode.net.identity import Identity
from p2pnode.net.memory import fake_identity
from p2pnode.types import PeerId

SERVICE = P2PNodeDirectory2.__name__
LOOKUPS_PER_ROUND = 10
"""Then everybody publishes anew."""
WARM_ROUNDS = 2
RENEWED_EVERY_S = 20.0
"""The swarm has run for a while: everybody has published a few times."""
NUM_BOOTSTRAPS = 3
"""Honest ones, whom everybody has been told of: who knows Sybils only is lost."""
FIRST_SYBIL = 100_000
FIRST_READER = 90_000
KEYS_TRIED = 40
"""So many keys are made for one that is kept."""
MOST_LISTED = 100
GROUPS = 4
"""Networks (/16) that the Sybils have."""


class Aim(StrEnum):
    """Where Sybils want to be."""

    ANYWHERE = "anywhere"
    """Where their keys happen to put them."""
    EVERY_KEY = "every-key"
    """The nearest ones to each of the directory's keys, evenly."""
    TWO_KEYS = "two-keys"
    """The nearest ones to two of the keys, all of them."""


@dataclass(slots=True)
class Attack:
    """What lookups came to."""

    lookups: int = 0
    whole: int = 0
    """Lookups that returned every honest announcement."""
    shares: list[float] = field(default_factory=list)
    """Of the honest announcements, how many each lookup returned."""
    forged: int = 0
    """Announcements returned that nobody honest has made."""
    calls: list[int] = field(default_factory=list)
    """Of each lookup."""
    sizes: list[int] = field(default_factory=list)
    """Of each lookup, in bytes."""


def run_attack(
    *,
    num_nodes: int = 200,
    share: float = 0.4,
    aim: Aim = Aim.ANYWHERE,
    lookups: int = 40,
    groups: int = GROUPS,
    seed: int = 0,
    note: Callable[[str], None] = lambda _: None,
) -> Attack:
    """Let everybody join and publish, then look up. Blocks; the same each time.

    num_nodes: Sybils (a ``share`` of them) and honest ones; lookups: by newcomers, all different;
    groups: networks that the Sybils have
    """
    result = Attack()
    num_sybils = round(share * num_nodes)
    run_virtual(
        _attack(num_nodes - num_sybils, num_sybils, aim, lookups, groups, seed, result, note)
    )
    return result


async def _attack(
    num_honest: int,
    num_sybils: int,
    aim: Aim,
    lookups: int,
    groups: int,
    seed: int,
    result: Attack,
    note: Callable[[str], None],
) -> None:
    overlay, rng = Overlay(seed=seed), random.Random(f"sybil/{seed}")
    honest = [fake_identity(1000 * seed + number) for number in range(num_honest)]
    ring = Ring(overlay, _chosen(aim, num_sybils, seed), groups)
    async with AsyncExitStack() as stack:
        directories: list[OverlayDirectory] = []
        order: list[Identity | Sybil] = [*honest, *ring.sybils]
        rng.shuffle(order)
        order.sort(key=lambda each: each not in honest[:NUM_BOOTSTRAPS])
        there: list[PeerId] = []
        for each in order:
            if isinstance(each, Sybil):
                each.enter()
            else:
                directory = await stack.enter_async_context(directory_of(overlay, each))
                await join(overlay, directory, there[:NUM_BOOTSTRAPS])
                directories.append(directory)
            there.append(each.peer)
        await ring.visit(there)
        note(f"{num_honest} nodes and {num_sybils} Sybils ({aim}) have joined")
        for turn in range(WARM_ROUNDS):
            await publish_all(directories, sequence=1 + turn)
            await asyncio.sleep(RENEWED_EVERY_S)
        for directory in directories:  # as every node does, to know whom to gossip with
            await directory.announcements()
        for number in range(lookups):
            if number % LOOKUPS_PER_ROUND == 0:
                await publish_all(directories, sequence=1 + WARM_ROUNDS + number)
            reader = directory_of(overlay, fake_identity(FIRST_READER + number), is_client=True)
            async with reader:
                await _look_up(overlay, reader, there, {d.peer for d in directories}, result)


async def _look_up(
    overlay: Overlay,
    reader: OverlayDirectory,
    there: Sequence[PeerId],
    wanted: set[PeerId],
    result: Attack,
) -> None:
    await join(overlay, reader, there[:NUM_BOOTSTRAPS])
    calls, size = overlay.traffic.num_calls, overlay.traffic.num_bytes
    found = {announcement.peer for announcement in await reader.announcements()}
    result.calls.append(overlay.traffic.num_calls - calls)
    result.sizes.append(overlay.traffic.num_bytes - size)
    result.lookups += 1
    result.whole += wanted <= found
    result.shares.append(len(wanted & found) / len(wanted))
    result.forged += len(found - wanted)


class Sybil:
    """One of a ring."""

    def __init__(self, ring: Ring, identity: Identity, number: int) -> None:
        self._ring = ring
        self._identity = identity
        self._forges = number % 2 == 0
        self._group = number % ring.groups
        self.peer = identity.peer
        self.peer_id = to_hivemind(identity.peer)
        self.node_id = node_id_of(self.peer_id)
        self.info = dht_pb2.NodeInfo(node_id=self.node_id.to_bytes())

    def enter(self) -> None:
        """Answer whoever calls."""
        self._ring.overlay.place(self.peer_id, self._group)
        self._ring.overlay.handlers[self.peer_id] = {
            f"{SERVICE}.rpc_ping": self._ping,
            f"{SERVICE}.rpc_store": self._store,
            f"{SERVICE}.rpc_find": self._find,
            f"{SERVICE}.rpc_fetch": self._fetch,
        }

    async def _ping(self, _: Any, __: P2PContext) -> Any:
        now = EPOCH_S + asyncio.get_running_loop().time()
        return dht_pb2.PingResponse(peer=self.info, dht_time=now, available=True)

    async def _store(self, request: Any, _: P2PContext) -> Any:
        """Say yes, and keep what it is listed as."""
        self._ring.listed[bytes(request.keys[0])].append(id_of(request.values[0]))
        return dht_pb2.StoreResponse(peer=self.info, store_ok=[True] * len(request.keys))

    async def _find(self, request: Any, _: P2PContext) -> Any:
        response = dht_pb2.FindResponse(peer=self.info)
        for raw_id in request.keys:
            key_id = DHTID(int.from_bytes(raw_id, "big"))
            listed = [*self._ring.listed[bytes(raw_id)], b"f" * ID_BYTES]
            near = [sybil.peer_id.to_bytes() for sybil in self._ring.nearest(key_id)]
            response.results.add(value=b"".join(listed), nearest_peer_ids=near)
        return response

    async def _fetch(self, request: Any, _: P2PContext) -> Any:
        """Half of them give nothing; half, records without a signature of whom they name."""
        response = dht_pb2.FindResponse(peer=self.info)
        for _ in request.keys:
            response.results.add(value=self._ring.forged if self._forges else b"")
        return response


class Ring:
    """Sybils that name each other."""

    def __init__(self, overlay: Overlay, identities: Sequence[Identity], groups: int) -> None:
        self.groups = groups
        self.overlay = overlay
        self.sybils = [Sybil(self, each, number) for number, each in enumerate(identities)]
        self.listed: defaultdict[bytes, deque[bytes]] = defaultdict(
            lambda: deque(maxlen=MOST_LISTED)
        )
        """By key: the ids of the last records that any of them was given."""
        victims = announcement_of(fake_identity(0).peer, issued_at=EPOCH_S)
        self.forged = seal_announcement(identities[0].key_pair, victims)
        self._nearest: dict[int, list[Sybil]] = {}

    def nearest(self, key_id: DHTID) -> list[Sybil]:
        """Those of the ring that lie nearest to a key."""
        if key_id not in self._nearest:
            ranked = sorted(self.sybils, key=lambda sybil: int(sybil.node_id) ^ int(key_id))
            self._nearest[key_id] = ranked[:BUCKET_SIZE]
        return self._nearest[key_id]

    async def visit(self, peers: Sequence[PeerId]) -> None:
        """Have everybody take every Sybil into their routing table, where there is room."""
        names = {sybil.peer for sybil in self.sybils}
        for sybil, peer in itertools.product(self.sybils, peers):
            if peer not in names:
                request = dht_pb2.PingRequest(peer=sybil.info)
                context = P2PContext("", to_hivemind(peer), sybil.peer_id)
                self.overlay.connect(sybil.peer_id, context.local_id)
                await self.overlay.handlers[context.local_id][f"{SERVICE}.rpc_ping"](
                    request, context
                )


def _chosen(aim: Aim, count: int, seed: int) -> list[Identity]:
    first = FIRST_SYBIL + 10_000 * seed
    if aim is Aim.ANYWHERE:
        return [fake_identity(first + number) for number in range(count)]
    pool = [fake_identity(first + number) for number in range(KEYS_TRIED * count)]
    places = {each.peer: int(node_id_of(to_hivemind(each.peer))) for each in pool}
    keys = ALL_KEYS if aim is Aim.EVERY_KEY else ALL_KEYS[:2]
    found: dict[PeerId, Identity] = {}
    ranked = [
        sorted(pool, key=lambda each: places[each.peer] ^ key_id)
        for key_id in (int(DHTID.generate(source=key)) for key in keys)
    ]
    for each in itertools.chain.from_iterable(zip(*ranked, strict=True)):
        if len(found) < count:
            found[each.peer] = each
    return list(found.values())
