"""Counts in buckets of rising width: small enough to keep one per peer, good enough to show."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

STEP_EDGES_S = tuple(0.001 * 2.0**power for power in range(15))
"""1 ms, 2 ms, ..., 16 s."""
UPTIME_EDGES_S = (60.0, 600.0, 3600.0, 6 * 3600.0, 86400.0, 7 * 86400.0)


@dataclass(slots=True)
class Histogram:
    """How many values were at most each edge, and above all of them (the last count)."""

    edges: tuple[float, ...]
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.edges) + 1)

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.edges, value)] += 1

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """The edge that this share of the values does not exceed; None when there are none.

        Values above the last edge count as that edge.
        """
        wanted, seen = share * self.total, 0
        for edge, count in zip((*self.edges, self.edges[-1]), self.counts, strict=True):
            seen += count
            if count and seen >= wanted:
                return edge
        return None
