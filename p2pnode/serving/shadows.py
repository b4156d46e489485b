"""Keeping the next hop's standby up to date from our journal, in the gaps; and hedging to it.

Rules of the copy:
- what travels are inputs of the next hop, never KV pages (7 to 20 times their bytes);
- the newest row is left out, so that a `Hedge` always has something to send;
- decode rows wait until `MIN_ROWS` of them make a step worth its overhead, or a while has passed;
- at most `MAX_BYTES` per session and `INTERVAL_S`: steps of the chain use the same uplink.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable

from p2pnode.errors import PeerLost
from p2pnode.net.link import Link
from p2pnode.serving.session import HopSession, Key, Shadowing
from p2pnode.wire.messages import Hedge, Shadow, Step

INTERVAL_S = 0.05
MIN_ROWS = 16
MAX_AGE_S = 0.5
MAX_BYTES = 64 * 1024
MAX_ROWS = 64


class Shadows:
    """Copies journals to standbys, for all sessions of a node."""

    def __init__(self) -> None:
        self._due: dict[Key, tuple[float, HopSession]] = {}
        """When to copy for whom; nobody who has nothing to copy."""
        self._is_new = asyncio.Event()

    async def run(self) -> None:
        """Copy in the gaps until cancelled; sleeps while nothing is due."""
        while True:
            now = await self._until_due()
            for at, session in list(self._due.values()):
                if at <= now:
                    del self._due[session.key]
                    self._copy(session, now)

    async def _until_due(self) -> float:
        """Sleep until something is due; returns what time it is."""
        clock = asyncio.get_running_loop().time
        while (at := min((at for at, _ in self._due.values()), default=math.inf)) > clock():
            self._is_new.clear()
            try:
                async with asyncio.timeout_at(at if math.isfinite(at) else None):
                    await self._is_new.wait()
            except TimeoutError:
                return max(at, clock())  # timers may be early by the resolution of the clock
        return clock()

    def grew(self, session: HopSession) -> None:
        """Its journal may have rows that a standby lacks: see to them, now or in a while."""
        shadowing = session.shadowing
        if shadowing is None or session.is_closed:
            return
        num_rows = session.journal.end - 1 - shadowing.cursor
        if num_rows > 0:
            at = shadowing.copied_at + (INTERVAL_S if num_rows >= MIN_ROWS else MAX_AGE_S)
            known = self._due.get(session.key)
            self._due[session.key] = (at, session)
            if known is None or at < known[0]:
                self._is_new.set()

    def set(self, session: HopSession, message: Shadow, link: Link | None) -> None:
        """Adopt the neighbours' standbys; what is copied to the same standby stays copied."""
        session.alternate = message.previous
        old = session.shadowing
        if link is None:
            session.shadowing = None
        elif old is None or old.link is not link:
            now = asyncio.get_running_loop().time()
            session.shadowing = Shadowing(link, message.position, copied_at=now)
            self.grew(session)

    def hedge(self, session: HopSession, message: Hedge) -> None:
        """Give the standby all that it lacks, and the word."""
        shadowing = session.shadowing
        if shadowing is None:
            return
        _send(shadowing.link, session.uncopied(session.max_tokens, leave=0))
        following = Hedge(
            session=session.id,
            layer=session.layers.stop,
            epoch=session.epoch,
            position=message.position,
        )
        _send(shadowing.link, [following])

    def _copy(self, session: HopSession, now: float) -> None:
        shadowing, journal = session.shadowing, session.journal
        if shadowing is None or session.is_closed:
            return
        if not shadowing.link.is_open:
            session.shadowing = None
            return
        row_bytes = max(1, journal.num_bytes // max(1, journal.end - journal.start))
        max_rows = min(MAX_ROWS, max(1, MAX_BYTES // row_bytes))
        before, shadowing.copied_at = shadowing.cursor, now
        _send(shadowing.link, session.uncopied(max_rows, leave=1))
        if shadowing.cursor != before:  # else it can have no more until there is more
            self.grew(session)


def _send(link: Link, messages: Iterable[Step | Hedge]) -> None:
    try:
        for message in messages:
            link.send(message)
    except PeerLost:
        return  # the client hears of it from its own link
