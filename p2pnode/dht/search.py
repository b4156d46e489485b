"""Searching the directory such that a crowd from few networks cannot fill the search.

As in Kademlia (Maymounkov and Mazieres, 2002) the nearest known nodes are asked for nearer ones.
Who has many keys can lie nearer to a key than anybody else, and name only friends; many addresses
in many networks are dearer (Heilman et al., "Eclipse attacks", 2015). So of each address group only
`PER_GROUP` nodes count, and what the others of it name is not followed. What everybody holds is
taken: records are signed. When too few networks are left, all nodes count: a swarm in one network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from p2pnode.dht.backend import DHTID, PeerID, ValueWithExpiration

WIDTH = 8
"""A search ends when so many of the nearest nodes that count have answered."""
PER_GROUP = 1
NUM_WORKERS = 8
MAX_CALLS = 600
"""Of one search."""
MAX_CANDIDATES = 400
"""Per key; the nearest ones."""

Neighbours = dict[DHTID, PeerID]
Found = tuple[ValueWithExpiration | None, Neighbours]
Ask = Callable[[PeerID, Collection[DHTID]], Awaitable[Mapping[DHTID, Found] | None]]
GroupsNow = Callable[[], Awaitable[Mapping[PeerID, str | None]]]
"""The address group of each peer that is connected; None: not counted as one of a group."""
UNKNOWN = "unknown"
"""The group of those who have gone by the time that we look."""


@dataclass(slots=True)
class KeySearch:
    """What is known about one key."""

    key: DHTID
    candidates: Neighbours = field(default_factory=dict)
    """Not asked yet."""
    asked: set[DHTID] = field(default_factory=set)
    counted: dict[DHTID, tuple[PeerID, str | None]] = field(default_factory=dict)
    """Those that have answered, with their groups."""
    spare: dict[DHTID, tuple[PeerID, Neighbours]] = field(default_factory=dict)
    """Those of groups that are full, and what they have named."""
    shards: list[ValueWithExpiration] = field(default_factory=list)
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
        shard, neighbours = found
        if shard is not None:
            self.shards.append(shard)
        if not self._has_room(node, group):
            self.spare[node] = peer, neighbours
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
        for node, (peer, neighbours) in self.spare.items():
            self.counted[node] = peer, None
            self.add(neighbours)
        return bool(self.candidates)

    def nearest(self) -> list[PeerID]:
        """Those that count, nearest first; at most `WIDTH`."""
        ranked = sorted(self.counted, key=self.distance)
        return [self.counted[node][0] for node in ranked[:WIDTH]]

    def records(self) -> dict[str, tuple[bytes, float]]:
        """By subkey: value and expiry, those that live longest."""
        found: dict[str, tuple[bytes, float]] = {}
        for shard in self.shards:
            for subkey, (value, expires_at) in shard.value.items():
                if subkey not in found or found[subkey][1] < expires_at:
                    found[subkey] = value, expires_at
        return found

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
            self.spare[node] = self.counted.pop(node)[0], {}


class Search:
    """One search for several keys; calls are shared by keys, and several are under way."""

    def __init__(
        self, keys: Sequence[DHTID], ask: Ask, groups_now: GroupsNow, *, max_keys: int
    ) -> None:
        """max_keys: of one call"""
        self.of = {key: KeySearch(key) for key in keys}
        self._ask = ask
        self._groups_now = groups_now
        self._max_keys = max_keys
        self._groups: dict[PeerID, str | None] = {}
        self._changed = asyncio.Event()
        self._under_way = 0
        self._num_calls = 0

    async def run(self, start: Mapping[DHTID, Neighbours], own: DHTID) -> None:
        """Search until nobody nearer is left. start: whom to ask first, per key; own: not asked."""
        self._groups.update(await self._groups_now())
        for key, search in self.of.items():
            search.asked.add(own)
            search.add(start[key])
        async with asyncio.TaskGroup() as group:
            for number in range(NUM_WORKERS):
                group.create_task(self._work(), name=f"search-{number}")

    async def _work(self) -> None:
        while True:
            call = self._next_call()
            if call is not None:
                await self._call(*call)
            elif self._under_way:
                self._changed.clear()
                await self._changed.wait()
            elif not sum(search.count_all() for search in self.of.values()):
                return

    def _next_call(self) -> tuple[DHTID, PeerID, list[KeySearch]] | None:
        """Whom to ask, and about which keys: all that have this node among theirs."""
        if self._num_calls >= MAX_CALLS:
            return None
        for search in sorted(self.of.values(), key=lambda each: len(each.asked)):
            chosen = search.next(self._groups)
            if chosen is None:
                continue
            node, peer = chosen
            others = [each for each in self.of.values() if each is not search]
            others = [each for each in others if node in each.candidates]
            others.sort(key=lambda each: each.distance(node))
            about = [search, *others[: self._max_keys - 1]]
            for each in about:
                each.asked.add(node)
                each.candidates.pop(node, None)
            return node, peer, about
        return None

    async def _call(self, node: DHTID, peer: PeerID, about: list[KeySearch]) -> None:
        self._num_calls += 1
        self._under_way += 1
        try:
            answer = await self._ask(peer, [search.key for search in about])
            if answer is not None and peer not in self._groups:
                self._groups.update(await self._groups_now())
                self._groups.setdefault(peer, UNKNOWN)
        finally:
            self._under_way -= 1
            self._changed.set()
        if answer is not None:
            for search in about:
                search.answered(node, peer, self._groups[peer], answer[search.key])
