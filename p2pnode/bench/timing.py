"""When tokens came, and what is made of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self


@dataclass(frozen=True, slots=True)
class Timing:
    """One generation. Seconds."""

    ttft_s: float
    gaps_s: tuple[float, ...]
    """From each token to the next."""
    compute_s: float = 0.0
    """Per decode step, all hops together; 0 for the baseline."""

    @classmethod
    def of(cls, began: float, at: Sequence[float], compute_s: float = 0.0) -> Self:
        """From the times of the tokens."""
        gaps = tuple(later - earlier for earlier, later in itertools.pairwise(at))
        return cls(at[0] - began, gaps, compute_s)

    @property
    def token_s(self) -> float:
        """Median time from one token to the next."""
        return median(self.gaps_s)
