"""Keeping the next hop's standby up to date from our journal, in the gaps; and hedging to it.

Rules of the copy:
- what travels are inputs of the next hop, never KV pages (7 to 20 times their bytes);
- the newest row is left out, so that a `Hedge` always has something to send;
- decode rows wait until `MIN_ROWS` of them make a step worth its overhead, or a while has passed;
- at most `MAX_BYTES` per session and turn: steps of the chain use the same uplink.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from p2pnode.errors import PeerLost
from p2pnode.net.link import Link
from p2pnode.serving.session import HopSession, Shadowing
from p2pnode.wire.messages import Hedge, Shadow, Step

INTERVAL_S = 0.05
MIN_ROWS = 16
MAX_AGE_S = 0.5
MAX_BYTES = 64 * 1024
MAX_ROWS = 64


class Shadows:
    """Copies journals to standbys, for all sessions of a node."""

    def __init__(self, sessions: Callable[[], Iterable[HopSession]]) -> None:
        self._sessions = sessions
        self._has_work = asyncio.Event()

    async def run(self) -> None:
        """Copy in the gaps until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            await self._has_work.wait()
            await asyncio.sleep(INTERVAL_S)
            shadowed = [session for session in self._sessions() if session.shadowing]
            if not shadowed:
                self._has_work.clear()
            for session in shadowed:
                self._copy(session, clock())

    def set(self, session: HopSession, message: Shadow, link: Link | None) -> None:
        """Adopt the neighbours' standbys; what is copied to the same standby stays copied."""
        session.alternate = message.previous
        old = session.shadowing
        if link is None:
            session.shadowing = None
        elif old is None or old.link is not link:
            session.shadowing = Shadowing(link, message.position)
            self._has_work.set()

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
        if shadowing is None or not shadowing.link.is_open:
            session.shadowing = None
            return
        num_rows = journal.end - 1 - shadowing.cursor
        if num_rows < MIN_ROWS and now - shadowing.copied_at < MAX_AGE_S:
            return
        row_bytes = max(1, journal.num_bytes // max(1, journal.end - journal.start))
        max_rows = min(MAX_ROWS, max(1, MAX_BYTES // row_bytes))
        shadowing.copied_at = now
        _send(shadowing.link, session.uncopied(max_rows, leave=1))


def _send(link: Link, messages: Iterable[Step | Hedge]) -> None:
    try:
        for message in messages:
            link.send(message)
    except PeerLost:
        return  # the client hears of it from its own link
