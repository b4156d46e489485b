"""The step whose output a session waits for: what was heard of it, and whether it was hedged."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from p2pnode.errors import PeerError
from p2pnode.pipeline.line import Flight
from p2pnode.pipeline.watch import Watch
from p2pnode.wire.messages import Result


@dataclass(slots=True, eq=False)
class Awaited:
    """Made by `Waiting`, which hedges; `Inbox` tells it what links tell."""

    result: asyncio.Future[Result]
    flight: Flight
    """The step that makes it."""
    moved_at: float
    """When anything was last heard of it."""
    watch: Watch | None = None
    """Told who has done it, where its times are measured."""
    hedged: int | None = None
    """The hop whose standby was asked to answer, too."""
    is_outpaced: bool = False
    """Whether that standby answered first."""
    answered_at: float = 0.0

    def progress(self, index: int, now: float, *, is_done: bool) -> None:
        """A hop says that it goes on, and perhaps that it has done the step."""
        self.moved_at = now
        if self.watch is not None and is_done:
            self.watch.hear(index, now)

    def answer(self, result: Result, now: float, last: int, *, is_by_standby: bool) -> None:
        """Its output has come, of the last hop (its index) or of that one's standby."""
        if not self.result.done():
            self.answered_at = now
            self.is_outpaced = is_by_standby or self._has_lost_hedge(last)
            self.result.set_result(result)

    def fail(self, error: PeerError) -> None:
        """It will not come."""
        if not self.result.done():
            self.result.set_exception(error)
            self.result.exception()  # seen: who waits may be cancelled right now

    def _has_lost_hedge(self, last: int) -> bool:
        """Whether a hop further up was hedged and has not been heard of."""
        if self.hedged is None or self.hedged == last or self.watch is None:
            return False
        return not self.watch.has_heard(self.hedged)
