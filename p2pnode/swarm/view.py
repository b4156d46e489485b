"""What a client or node knows of its swarm: one reading of the directory, shared for a moment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from p2pnode.dht.directory import Directory
from p2pnode.errors import JoinFailed
from p2pnode.types import Announcement, PeerHealth, PeerId, SwarmView

log = logging.getLogger(__name__)

MAX_AGE_S = 1.0
STALLED_S = 3.0


class SwarmReader:
    """Reads the directory; callers at the same time share one reading.

    health: what gossip says now
    """

    def __init__(
        self,
        directory: Directory,
        *,
        wall_clock: Callable[[], float],
        monotonic: Callable[[], float],
        health: Callable[[], Mapping[PeerId, PeerHealth]] = dict,
    ) -> None:
        self._directory = directory
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self._health = health
        self._reading = asyncio.Lock()
        self._read_at = float("-inf")
        self._announcements: tuple[Announcement, ...] = ()

    async def view(self, *, max_age_s: float = MAX_AGE_S) -> SwarmView:
        """The swarm as it was at most ``max_age_s`` ago; 0 reads it anew.

        Where a reading fails, or stalls on peers that have died, and some peers of the last one
        should still be there, these are the answer; else raises JoinFailed. A caller that is
        cancelled in the middle of a reading leaves it to the next one that waits.
        """
        oldest = self._monotonic() - max_age_s
        async with self._reading:
            if self._read_at <= oldest:
                await self._read()
        return self.known()

    async def _read(self) -> None:
        started_at, is_known = self._monotonic(), bool(self.known().announcements)
        try:
            async with asyncio.timeout(STALLED_S if is_known else None):
                self._announcements = await self._directory.announcements()
                self._read_at = started_at
        except (TimeoutError, JoinFailed) as error:
            if not is_known:
                raise
            log.warning("directory not read, the last reading serves: error=%s", error or "slow")

    def known(self) -> SwarmView:
        """The last reading, without what has expired since, and what gossip says now."""
        now = self._wall_clock()
        live = tuple(a for a in self._announcements if a.expires_at > now)
        return SwarmView(live, self._health())
