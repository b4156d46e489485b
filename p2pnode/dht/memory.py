"""The directory in one process: the same records, rules and shards, without a network.

For scenarios on virtual time and simulations of a thousand nodes. Islands are real: what one side
of a partition stores, the other cannot read until they meet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from libp2p.crypto.keys import KeyPair

from p2pnode.dht.admits import Admits, everybody
from p2pnode.dht.holder import Holder
from p2pnode.dht.records import (
    ALL_KEYS,
    RecordJudge,
    key_of,
    newest_live,
    seal_announcement,
    shard_of,
    subkey_of,
)
from p2pnode.errors import BadRecord, JoinFailed, NotMember
from p2pnode.trust.envelope import peer_of
from p2pnode.types import Announcement, PeerId

CUT_OFF_AFTER_S = 3.0
MAINLAND = 0


class MemoryDht:
    """The holders of a swarm, as one per island."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        latency_s: float = 0.0,
        admits: Admits = everybody,
    ) -> None:
        """admits: in a private swarm, who is in it"""
        self._admits = admits
        self.clock = clock
        self.latency_s = latency_s
        self._holders: dict[int, Holder] = {MAINLAND: Holder(RecordJudge())}
        self._island_of: dict[PeerId, int] = {}
        self._cut_off: set[PeerId] = set()

    def cut_off(self, peer: PeerId) -> None:
        """Let this peer reach nobody."""
        self._cut_off.add(peer)

    def reconnect(self, peer: PeerId) -> None:
        """Undo `cut_off`."""
        self._cut_off.discard(peer)

    def partition(self, peers: Iterable[PeerId]) -> None:
        """Put these peers on a new island with no records of its own yet."""
        island = max(self._holders) + 1
        self._holders[island] = Holder(RecordJudge())
        self._island_of.update(dict.fromkeys(peers, island))

    def merge(self) -> None:
        """Let all islands meet: every record is on the mainland again."""
        mainland, now = self._holders[MAINLAND], self.clock()
        for island in [island for island in self._holders if island != MAINLAND]:
            holder = self._holders.pop(island)
            for key in holder.keys():
                for subkey, held in holder.shard(key, now=now).items():
                    _offer(mainland, key, subkey, held.value, held.expires_at, now)
        self._island_of.clear()

    async def holder_of(self, peer: PeerId, *, serves: bool = False) -> Holder:
        """The holder that a peer reaches, after the latency; raises JoinFailed when cut off.

        serves: to announce itself there; raises NotMember for one who may not
        """
        if peer in self._cut_off:
            await asyncio.sleep(CUT_OFF_AFTER_S)
            raise JoinFailed("no peer of the swarm answers; check this machine's network")
        await asyncio.sleep(self.latency_s)
        if not self._admits(peer, serves):
            raise NotMember("the directory is that of a private swarm; join it with --invite")
        return self._holders[self._island_of.get(peer, MAINLAND)]


def _offer(
    holder: Holder, key: bytes, subkey: str, value: bytes, expires_at: float, now: float
) -> None:
    try:
        holder.put(key, subkey, value, expires_at, now=now)
    except BadRecord:
        return  # an older copy than the mainland's: what a real holder refuses too


class MemoryDirectory:
    """One participant's view of a `MemoryDht`; a `Directory`."""

    def __init__(self, dht: MemoryDht, key_pair: KeyPair) -> None:
        self._dht = dht
        self._key_pair = key_pair
        self._judge = RecordJudge()
        self.peer = peer_of(key_pair.public_key)

    async def publish(self, announcement: Announcement) -> None:
        """See `Directory.publish`."""
        value = seal_announcement(self._key_pair, announcement)
        key, subkey = key_of(shard_of(announcement.peer)), subkey_of(announcement)
        await self.put(key, subkey, value, announcement.expires_at)

    async def put(self, key: bytes, subkey: str, value: bytes, expires_at: float) -> None:
        """Ask the holder to keep these bytes; raises BadRecord when it refuses."""
        holder = await self._dht.holder_of(self.peer, serves=True)
        holder.put(key, subkey, value, expires_at, now=self._dht.clock())

    async def announcements(self) -> tuple[Announcement, ...]:
        """See `Directory.announcements`."""
        holder = await self._dht.holder_of(self.peer)
        now = self._dht.clock()
        found = []
        for key in ALL_KEYS:
            for subkey, held in holder.shard(key, now=now).items():
                try:
                    found.append(
                        self._judge.check(key, subkey, held.value, held.expires_at, now=now)
                    )
                except BadRecord:
                    continue
        return newest_live(found, now=now)
