"""From the times at which tokens came to what a reader waited: pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

ENOUGH_GAPS = 3


@dataclass(frozen=True, slots=True)
class Pace:
    """How tokens came, in milliseconds; see `Trial`."""

    loop_ms: float
    stall_ms: float


def pace(token_times_s: Sequence[float], fault_at_s: float | None) -> Pace:
    """Loop and stall of a generation.

    token_times_s: when each token came, rising, on any clock
    fault_at_s: when something went wrong, on the same clock; None: never, and every gap counts
    """
    gaps = list(pairwise(token_times_s))
    before = [b - a for a, b in gaps if fault_at_s is None or b <= fault_at_s]
    lengths = before if len(before) >= ENOUGH_GAPS else [b - a for a, b in gaps]
    loop_s = median(lengths) if lengths else 0.0
    after = [b - a for a, b in gaps if fault_at_s is None or b > fault_at_s]
    if fault_at_s is not None and token_times_s and token_times_s[0] > fault_at_s:
        after.append(token_times_s[0] - fault_at_s)
    stall_s = max(0.0, max(after, default=loop_s) - loop_s)
    return Pace(round(1000 * loop_s, 3), round(1000 * stall_s, 3))


WINDOW = 32
RECOVERED = 1.25


def recovery_steps(token_times_s: Sequence[float], fault_at_s: float) -> int | None:
    """After how many tokens the pace was what it had been; None: not within the text.

    The first k such that the p95 of the `WINDOW` token times that follow the k-th after the fault
    is at most `RECOVERED` times the p95 of the `WINDOW` before it.
    """
    before = [b - a for a, b in pairwise(token_times_s) if b <= fault_at_s]
    after = [b - a for a, b in pairwise(token_times_s) if b > fault_at_s]
    if len(before) < WINDOW:
        return None
    limit_s = RECOVERED * _p95(before[-WINDOW:])
    starts = range(len(after) - WINDOW + 1)
    return next((k for k in starts if _p95(after[k : k + WINDOW]) <= limit_s), None)


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]
