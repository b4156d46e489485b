"""What a node has measured of its own work lately; health gossip carries it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from statistics import median

from p2pnode.trend import Cost, Trend

BUCKETS = (1, 8, 64, 1 << 30)
"""Forwards are grouped by their tokens: up to so many."""
KEPT = 64
ERRORS_FOR_S = 300.0
SMOOTHING = 0.1
FIT_AGAIN_AFTER = 16
"""Forwards; the cost of one does not change faster."""
USUAL_KNEE = 32.0
"""Before forwards of different sizes have been seen."""
MAX_KNEE = 1024.0


class Tally:
    """Compute times per token count, waiting times, errors by kind."""

    def __init__(self, measured: Sequence[tuple[int, float]] = ()) -> None:
        """measured: (tokens, seconds) of forwards before the first one"""
        self.queue_s = 0.0
        """How long a step has waited lately, mean."""
        self.busy_s = 0.0
        """Compute time since the start; its growth over time is the load."""
        self._times: dict[int, deque[tuple[int, float]]] = {}
        self._cost = Cost(USUAL_KNEE * 1e-4, 1e-4)
        self._until_fit = 0
        self._errors: deque[tuple[float, str]] = deque(maxlen=1000)
        for num_tokens, compute_s in measured:
            self._put(num_tokens, compute_s)

    def forward(self, num_tokens: int, compute_s: float) -> None:
        """One forward of so many tokens (all its sessions together) took so long."""
        self._put(num_tokens, compute_s)
        self.busy_s += compute_s
        self._until_fit -= 1

    def _put(self, num_tokens: int, compute_s: float) -> None:
        bucket = next(bucket for bucket in BUCKETS if num_tokens <= bucket)
        self._times.setdefault(bucket, deque(maxlen=KEPT)).append((num_tokens, compute_s))

    def cost(self) -> Cost:
        """The line through the typical forward of each size."""
        if self._until_fit <= 0 and self._times:
            self._until_fit = FIT_AGAIN_AFTER
            self._cost = _line(map(_typical, self._times.values()))
        return self._cost

    def waited(self, queue_s: float) -> None:
        """A step of a chain waited so long for the device."""
        self.queue_s += SMOOTHING * (queue_s - self.queue_s)

    def failed(self, kind: str, now: float) -> None:
        """An error of that kind happened."""
        self._errors.append((now, kind))

    def step_times(self) -> tuple[tuple[int, float, float], ...]:
        """(tokens, p50, p95 of the compute time in seconds), tokens rising."""
        found = []
        for bucket in sorted(self._times):
            seen = self._times[bucket]
            tokens = _quantile([tokens for tokens, _ in seen], 0.5)
            times = [compute_s for _, compute_s in seen]
            found.append((int(tokens), _quantile(times, 0.5), _quantile(times, 0.95)))
        return tuple(found)

    def errors(self, now: float) -> tuple[tuple[str, int], ...]:
        """(kind, how many in the last minutes), the most frequent first, at most 4."""
        recent = Counter(kind for at, kind in self._errors if now - at <= ERRORS_FOR_S)
        return tuple(recent.most_common(4))


def _typical(seen: deque[tuple[int, float]]) -> tuple[float, float]:
    """(tokens, seconds) in the middle of a bucket; immune to a forward that was disturbed."""
    return median(tokens for tokens, _ in seen), median(compute_s for _, compute_s in seen)


def _line(points: Iterable[tuple[float, float]]) -> Cost:
    """Through typical forwards, by the least relative error."""
    trend = Trend()
    for num_tokens, compute_s in points:
        trend.note(num_tokens, compute_s, 1.0 / max(compute_s, 1e-9) ** 2)
    return trend.cost(usual_knee=USUAL_KNEE, max_knee=MAX_KNEE)


def _quantile(values: list[int] | list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
