"""Keeps our announcement in the directory, and takes it down when we leave."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable

from p2pnode.dht.directory import Directory
from p2pnode.dht.records import MAX_AHEAD_S, TTL_S
from p2pnode.errors import P2PNodeError
from p2pnode.types import Announcement

log = logging.getLogger(__name__)

INTERVAL_S = 20.0
RETRY_S = 2.0
WITHDRAW_WITHIN_S = 2.0


class Announcer:
    """Publishes what ``describe`` says, every `INTERVAL_S` and at once after `announce_now`.

    The sequence number is the wall clock in milliseconds, so it rises across restarts too;
    ``describe`` leaves sequence, ``issued_at``, ``expires_at`` and ``is_withdrawn`` to us.
    """

    def __init__(
        self,
        directory: Directory,
        describe: Callable[[], Announcement],
        *,
        wall_clock: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._describe = describe
        self._wall_clock = wall_clock
        self._last: Announcement | None = None
        self._due = asyncio.Event()
        self._published = asyncio.Event()

    def announce_now(self) -> None:
        """Publish without waiting for the next interval (figures changed, islands met)."""
        self._due.set()

    async def wait_published(self) -> None:
        """Return when a first announcement is in the directory."""
        await self._published.wait()

    async def run(self) -> None:
        """Keep the announcement fresh until cancelled, then withdraw it within 2 s."""
        try:
            while True:
                wait_s = INTERVAL_S if await self._publish() else RETRY_S
                await self._sleep(wait_s)
        finally:
            await self._withdraw()

    async def _sleep(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._due.wait()
        except TimeoutError:
            return
        finally:
            self._due.clear()

    async def _publish(self) -> bool:
        announcement = self._dated(self._describe(), is_withdrawn=False)
        try:
            await self._directory.publish(announcement)
        except P2PNodeError as error:
            log.warning("announcement not stored: error=%s retry_s=%.0f", error, RETRY_S)
            return False
        self._published.set()
        log.debug("announced: layers=%s sequence=%d", announcement.layers, announcement.sequence)
        return True

    async def _withdraw(self) -> None:
        """Readers drop a tombstone's peer at once instead of after a minute."""
        if self._last is None:
            return
        tombstone = self._dated(self._last, is_withdrawn=True)
        try:
            async with asyncio.timeout(WITHDRAW_WITHIN_S):
                await self._directory.publish(tombstone)
        except (TimeoutError, P2PNodeError) as error:
            what = str(error) or "timeout"
            log.info("announcement not withdrawn, it will expire: error=%s", what)

    def _dated(self, announcement: Announcement, *, is_withdrawn: bool) -> Announcement:
        now = self._wall_clock()
        sequence, expires_at = round(now * 1000), now + TTL_S
        if self._last is not None:
            # Holders want a newer record to expire later, also when the clock was set back.
            sequence = max(sequence, self._last.sequence + 1)
            expires_at = min(max(expires_at, self._last.expires_at + 0.001), now + MAX_AHEAD_S)
        self._last = dataclasses.replace(
            announcement,
            sequence=sequence,
            issued_at=now,
            expires_at=expires_at,
            is_withdrawn=is_withdrawn,
        )
        return self._last
