"""Searching the directory such that a crowd from few networks cannot fill the search.

As in Kademlia (Maymounkov and Mazieres, 2002) the nearest known nodes are asked for nearer ones.
Who has many keys can lie nearer to a key than anybody else, and name only friends; many addresses
in many networks are dearer (Heilman et al., "Eclipse attacks", 2015). So of each address group only
`PER_GROUP` nodes count, and what the others of it name is not followed. Those that count are who
keeps records and who is read; the records are signed, and the union of what is listed counts. When
too few networks are left, all nodes count: a swarm in one network.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from p2pnode.dht.backend import DHTID, PeerID
from p2pnode.dht.groups import Groups
from p2pnode.dht.table import Place, spread

WIDTH = 8
"""A search ends when so many of the nearest nodes that count have answered."""
PER_GROUP = 1
NUM_WORKERS = 8
PATIENCE_S = 0.5
"""Who is silent for longer is waited for beside the next ones."""
MAX_CALLS = 600
"""Of one search."""
MAX_CANDIDATES = 400
"""Per key; the nearest ones."""

Neighbours = dict[DHTID, PeerID]
Found = tuple[Collection[bytes], Neighbours]
"""The ids of the records that a node holds, and whom it knows near the key."""
Ask = Callable[[PeerID, Collection[DHTID]], Awaitable[Mapping[DHTID, Found] | None]]


@dataclass(slots=True)
class KeySearch:
    """What is known about one key."""

    key: DHTID
    candidates: Neighbours = field(default_factory=dict)
    """Not asked yet."""
    asked: set[DHTID] = field(default_factory=set)
    counted: dict[DHTID, Place] = field(default_factory=dict)
    """Those that have answered."""
    spare: dict[DHTID, tuple[Place, Neighbours]] = field(default_factory=dict)
    """Those of groups that are full, and what they have named."""
    lists: dict[DHTID, Collection[bytes]] = field(default_factory=dict)
    """The records that each says it holds."""
    has_limit: bool = True

    def distance(self, node: DHTID) -> int:
        """From the key."""
        return int(node) ^ int(self.key)

    def add(self, neighbours: Mapping[DHTID, PeerID]) -> None:
        """Hear of nodes."""
        for node, peer in neighbours.items():
            if node not in self.asked:
                self.candidates[node] = peer
        while len(self.candidates) > MAX_CANDIDATES:
            del self.candidates[max(self.candidates, key=self.distance)]

    def next(self, groups: Mapping[PeerID, str | None]) -> tuple[DHTID, PeerID] | None:
        """The nearest one to ask; None when the nearest that count have answered."""
        for node in sorted(self.candidates, key=self.distance):
            if self._is_beyond(node):
                return None
            peer = self.candidates[node]
            if peer not in groups or self._has_room(node, groups[peer]):
                return node, peer
        return None

    def answered(self, node: DHTID, peer: PeerID, group: str | None, found: Found) -> None:
        """Take what a node has said."""
        listed, neighbours = found
        self.lists[node] = listed
        if not self._has_room(node, group):
            self.spare[node] = (peer, group), neighbours
            return
        self.counted[node] = peer, group
        if self.has_limit and group is not None:
            self._drop_farthest_of(group)
        self.add(neighbours)

    def count_all(self) -> bool:
        """Give up the limit when it leaves too few; returns whether the search goes on."""
        if not self.has_limit or len(self.counted) >= WIDTH:
            return False
        self.has_limit = False
        for node, (place, neighbours) in self.spare.items():
            self.counted[node] = place
            self.add(neighbours)
        return bool(self.candidates)

    def nearest(self) -> list[PeerID]:
        """The nearest ones of each group, then the others that count; at most `WIDTH`."""
        return spread((self.counted[n] for n in sorted(self.counted, key=self.distance)), WIDTH)

    def is_among_nearest(self, node: DHTID) -> bool:
        """Whether this candidate may still be one of those that end the search."""
        limit = self.distance(node)
        rivals = itertools.chain(self.counted, self.candidates)
        return node in self.candidates and sum(self.distance(n) < limit for n in rivals) < WIDTH

    def _is_beyond(self, node: DHTID) -> bool:
        limit = self.distance(node)
        return sum(self.distance(each) < limit for each in self.counted) >= WIDTH

    def _has_room(self, node: DHTID, group: str | None) -> bool:
        if not self.has_limit or group is None:
            return True
        limit = self.distance(node)
        same = (each for each, (_, its) in self.counted.items() if its == group)
        return sum(self.distance(each) < limit for each in same) < PER_GROUP

    def _drop_farthest_of(self, group: str) -> None:
        same = [each for each, (_, its) in self.counted.items() if its == group]
        if len(same) > PER_GROUP:
            node = max(same, key=self.distance)
            self.spare[node] = self.counted.pop(node), {}


class Search:
    """One search for several keys; calls are shared by keys, and several are under way."""

    def __init__(
        self, keys: Sequence[DHTID], ask: Ask, groups: Groups, *, own: DHTID, max_keys: int
    ) -> None:
        """own: who is not asked; max_keys: of one call"""
        self.of = {key: KeySearch(key) for key in keys}
        self._ask = ask
        self._groups = groups
        self._own = own
        self._max_keys = max_keys
        self._changed = asyncio.Event()
        self._under_way = 0
        self._num_calls = 0
        self._is_stopped = False

    async def run(self, start: Mapping[DHTID, Neighbours]) -> None:
        """Search until nobody nearer is left. start: whom to ask first, per key."""
        for key, search in self.of.items():
            search.asked.add(self._own)
            search.add(start[key])
        async with asyncio.TaskGroup() as group:
            for number in range(NUM_WORKERS):
                group.create_task(self._work(group), name=f"search-{number}")

    def stop(self) -> None:
        """Ask nobody more: what is known now is the result, calls under way change it no more."""
        if not self._is_stopped:
            self._is_stopped = True
            for search in self.of.values():
                search.count_all()

    def holders(self) -> dict[bytes, list[PeerID]]:
        """Those that count and list a record, in the order in which to ask them for it.

        First who is near us: so each reader has others.
        """
        found: dict[bytes, list[PeerID]] = {}
        for search in self.of.values():
            for node in sorted(search.counted, key=int(self._own).__xor__):
                peer, _ = search.counted[node]
                for record_id in search.lists[node]:
                    found.setdefault(record_id, []).append(peer)
        return found

    async def _work(self, group: asyncio.TaskGroup) -> None:
        while True:
            call = self._next_call()
            if call is not None:
                self._under_way += 1
                asking = group.create_task(self._call(*call), name="search-call")
                await asyncio.wait({asking}, timeout=PATIENCE_S)
            elif self._under_way:
                self._changed.clear()
                await self._changed.wait()
            elif not sum(search.count_all() for search in self.of.values()):
                return

    def _next_call(self) -> tuple[DHTID, PeerID, list[KeySearch]] | None:
        """Whom to ask, and about which keys: all that have this node among their nearest."""
        if self._is_stopped or self._num_calls >= MAX_CALLS:
            return None
        for search in sorted(self.of.values(), key=lambda each: len(each.asked)):
            chosen = search.next(self._groups.known)
            if chosen is None:
                continue
            node, peer = chosen
            others = [each for each in self.of.values() if each is not search]
            others = [each for each in others if each.is_among_nearest(node)]
            others.sort(key=lambda each: each.distance(node))
            about = [search, *others[: self._max_keys - 1]]
            for each in about:
                each.asked.add(node)
                each.candidates.pop(node, None)
            return node, peer, about
        return None

    async def _call(self, node: DHTID, peer: PeerID, about: list[KeySearch]) -> None:
        self._num_calls += 1
        try:
            answer = await self._ask(peer, [search.key for search in about])
            group = await self._groups.of(peer)
        finally:
            self._under_way -= 1
            self._changed.set()
        if answer is not None and not self._is_stopped:
            for search in about:
                search.answered(node, peer, group, answer[search.key])
