"""What a forward takes by its tokens: a line through what was measured. Pure.

Forwards take about ``fixed_s + token_s * tokens``: the weights are read once, whatever is merged.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """What a forward of so many tokens takes."""

    fixed_s: float
    token_s: float

    @property
    def knee(self) -> float:
        """Tokens that take as long as what every forward takes."""
        return self.fixed_s / self.token_s


@dataclass(slots=True)
class Trend:
    """A line through (tokens, seconds), by weighted least squares."""

    keep: float = 1.0
    """What is left of the weight of older points when another one comes."""
    weight: float = 0.0
    """Of all points."""
    tokens: float = 0.0
    seconds: float = 0.0
    """Of the typical point: weighted means."""
    _spread: float = 0.0
    _together: float = 0.0

    def note(self, num_tokens: float, seconds: float, weight: float = 1.0) -> None:
        """So many tokens took so long."""
        old = self.keep * self.weight
        self.weight = old + weight
        share = weight / self.weight
        more_tokens, more_s = num_tokens - self.tokens, seconds - self.seconds
        self.tokens += share * more_tokens
        self.seconds += share * more_s
        # Around the mean (West, 1979): sums of squares would cancel each other out.
        self._spread = self.keep * self._spread + old * share * more_tokens**2
        self._together = self.keep * self._together + old * share * more_tokens * more_s

    @property
    def token_s(self) -> float | None:
        """The slope; None when all points are of one size."""
        if self._spread <= 1e-9 * self.weight:
            return None
        return self._together / self._spread

    def at(self, num_tokens: float) -> float:
        """What so many tokens should take; 0 while nothing is known."""
        if not self.weight:
            return 0.0
        token_s = self.token_s
        if token_s is None:  # no better is known than in proportion
            return self.seconds * max(1.0, num_tokens / self.tokens)
        return max(0.0, self.seconds + max(0.0, token_s) * (num_tokens - self.tokens))

    def cost(self, *, usual_knee: float, max_knee: float) -> Cost:
        """The same line with both parts positive and the knee within 1 and ``max_knee``.

        usual_knee: where all points are of one size
        """
        token_s = self.token_s
        if self.seconds <= 0.0 or token_s is None:
            token_s = max(self.seconds / (usual_knee + self.tokens), 1e-12)
            return Cost(usual_knee * token_s, token_s)
        least, most = self.seconds / (max_knee + self.tokens), self.seconds / (1.0 + self.tokens)
        token_s = min(max(token_s, least), most)
        return Cost(self.seconds - token_s * self.tokens, token_s)
