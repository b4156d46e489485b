"""How long to wait for a step before a hop is called silent; from this session's own history."""

from __future__ import annotations

SMOOTHING = 0.1
TIMES_MEAN = 8.0
TIMES_DEVIATION = 6.0


class Patience:
    """Mean and mean deviation of recent steps (as TCP estimates its timeout, RFC 6298)."""

    def __init__(self, *, floor_s: float, ceiling_s: float) -> None:
        self._floor_s = floor_s
        self._ceiling_s = ceiling_s
        self._mean_s: float | None = None
        self._deviation_s = 0.0

    def note(self, step_s: float) -> None:
        """A decode step of one token took so long."""
        if self._mean_s is None:
            self._mean_s = step_s
        off = abs(step_s - self._mean_s)
        self._deviation_s += SMOOTHING * (off - self._deviation_s)
        self._mean_s += SMOOTHING * (step_s - self._mean_s)

    def seconds(self, num_tokens: int) -> float:
        """How long nothing at all may be heard of a step of so many tokens."""
        if self._mean_s is None or num_tokens > 1:
            return self._ceiling_s
        wanted_s = TIMES_MEAN * self._mean_s + TIMES_DEVIATION * self._deviation_s
        return min(self._ceiling_s, max(self._floor_s, wanted_s))
