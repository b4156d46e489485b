"""Whether our wall clock is wrong, judged by the healths that peers tell us themselves; pure.

Others refuse the healths of a node whose clock is off, and cannot tell it so. But it can see for
itself: what most peers have just dated lies in its future, or long in its past.
"""

from __future__ import annotations

from statistics import median_high, median_low

from p2pnode.types import PeerId

OFF_S = 5.0
"""Healths are believed up to so far from the future."""
JUDGE_EVERY_S = 60.0
MIN_WITNESSES = 2
MAX_WITNESSES = 64


class ClockWatch:
    """How far our clock is ahead of each peer that has told its health lately."""

    def __init__(self) -> None:
        self._ahead_s: dict[PeerId, float] = {}
        self._judged_at: float | None = None
        self._was_off = False

    def heard(self, author: PeerId, age_s: float) -> None:
        """A health came from its author, dated so long ago; the lowest age counts.

        A health may have waited on its way, or been held up together with us: that makes it older,
        never younger.
        """
        if author in self._ahead_s or len(self._ahead_s) < MAX_WITNESSES:
            self._ahead_s[author] = min(age_s, self._ahead_s.get(author, age_s))

    def judge(self, now: float) -> float | None:
        """By how much our clock is ahead (below 0: behind) when most say so; else None.

        Once per `JUDGE_EVERY_S`, and only what holds for two such spans is told: one may have been
        spent asleep.
        """
        if self._judged_at is None:
            self._judged_at = now
        if now - self._judged_at < JUDGE_EVERY_S:
            return None
        ahead_s = self._agreed_s()
        is_off = abs(ahead_s) > OFF_S
        was_off, self._was_off = self._was_off, is_off
        self._ahead_s, self._judged_at = {}, now
        return ahead_s if is_off and was_off else None

    def _agreed_s(self) -> float:
        """What more than half of the witnesses say at least; 0 when they do not agree."""
        said = self._ahead_s.values()
        if len(said) < MIN_WITNESSES:
            return 0.0
        return max(median_low(said), 0.0) + min(median_high(said), 0.0)
