"""Getting the records that a search has seen listed: each about once, whoever may hide it.

A holder that lists a record may not give it, or not soon. So each is asked for at one of those who
list it, where that fails or takes long at two others, then at all that are left: three rounds at
most, and where nobody lies the bytes of one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from p2pnode.dht.backend import PeerID
from p2pnode.types import Announcement

WAVES = (1, 2, None)
"""How many of those who list a record are asked for it, one wave after the other."""
WAVE_WITHIN_S = 1.0
"""Then the next wave goes out, too."""
MAX_IDS = 512
"""In one request: so many records are 2 MiB at most, and a reply may have 4."""
MAX_CALLS_PER_PEER = 4
"""Who lists more than these give is not asked for the rest."""
NUM_WORKERS = 16

Known = Callable[[bytes], Announcement | None]
Take = Callable[[PeerID, Sequence[bytes]], Awaitable[Sequence[Announcement]]]
"""(whom, which records): those that may be believed; none where the peer fails."""


class Fetch:
    """One reading's records.

    known: what the record of an id says, if it has been seen
    """

    def __init__(self, known: Known, take: Take) -> None:
        self._known = known
        self._take = take
        self._num_calls: Counter[PeerID] = Counter()
        self._places = asyncio.Semaphore(NUM_WORKERS)
        self.found: list[Announcement] = []
        """So far."""

    async def run(self, holders: Mapping[bytes, Sequence[PeerID]]) -> None:
        """Find what these records say; what is known already is not asked for.

        holders: who lists each id, in the order in which to ask them
        """
        self.found += filter(None, map(self._known, holders))
        left = {each: list(dict.fromkeys(peers)) for each, peers in holders.items()}
        async with asyncio.TaskGroup() as group:
            for width in WAVES:
                wanted: dict[PeerID, list[bytes]] = {}
                for each in [each for each in left if self._known(each) is None]:
                    for peer in left[each][:width]:
                        wanted.setdefault(peer, []).append(each)
                    del left[each][:width]
                calls = [group.create_task(self._take_from(*each)) for each in wanted.items()]
                if calls:
                    await asyncio.wait(calls, timeout=WAVE_WITHIN_S)

    async def _take_from(self, peer: PeerID, ids: Sequence[bytes]) -> None:
        for start in range(0, len(ids), MAX_IDS):
            if self._num_calls[peer] == MAX_CALLS_PER_PEER:
                return
            self._num_calls[peer] += 1
            async with self._places:
                self.found.extend(await self._take(peer, ids[start : start + MAX_IDS]))
