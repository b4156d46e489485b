"""What a client or node knows of its swarm: one reading of the directory, shared for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from p2pnode.dht.directory import Directory
from p2pnode.types import Announcement, PeerHealth, PeerId, SwarmView

MAX_AGE_S = 1.0


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

        Raises JoinFailed when the directory cannot be read. A caller that is cancelled in the
        middle of a reading leaves it to the next one that waits.
        """
        oldest = self._monotonic() - max_age_s
        async with self._reading:
            if self._read_at <= oldest:
                started_at = self._monotonic()
                self._announcements = await self._directory.announcements()
                self._read_at = started_at
        return self.known()

    def known(self) -> SwarmView:
        """The last reading, without what has expired since, and what gossip says now."""
        now = self._wall_clock()
        live = tuple(a for a in self._announcements if a.expires_at > now)
        return SwarmView(live, self._health())
