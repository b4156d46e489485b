"""How many tokens to guess at a time, from what this session has measured. Pure.

Windows of guesses are sent one after the other without waiting for answers (as in PipeInfer,
Butler et al., 2024), behind a known token that goes first. With acceptance a, a run has 1 / (1 - a)
tokens, the last of them in the place of a wrong guess; that is known one loop L(g) after its window
of g guesses was sent. The first window takes (g - 1) guesses of t each to be full; the others, of
which a run has a^g / (1 - a^g), follow each other every T_g, the slower of guessing a window and of
the slowest hop. So

    rate(g) = 1 / (1 - a) / (L(g) + (g - 1) t + T_g a^g / (1 - a^g))

which has to be more than without guesses, where a token need not come to the client and back (see
`serving.ring`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from p2pnode.trend import Trend

SIZES = (1, 2, 3, 4, 6, 8, 12, 16)
FIRST_ACCEPTANCE = 0.7
MEMORY = 32.0
"""Guesses after which an old one counts 1 / e as much."""
FIRST_WEIGHT = 4.0
MIN_GAIN = 1.05
"""Guessing that promises less is not worth the others' time."""
PROBE_EVERY = 48
"""While it does not pay, one window in so many tokens finds out whether that has changed."""
PROBE_TOKENS = 2
PACE = 1.05
"""Windows come so much slower than the slowest hop could take them, or a backlog never drains."""
OVERHEAD_S = 0.0005
"""Per step, beside its compute."""
MAX_AHEAD = 64
"""Guesses that may be under way."""
MIN_CHANCE = 0.002, 0.02
"""A guess that all those before it leave less likely is not sent: within these bounds, where the
loop that it may save, times its chance, is `WORTH` of the time that it takes the slowest hop."""
WORTH = 0.25


@dataclass(slots=True)
class Policy:
    """Of one session."""

    acceptance: float = FIRST_ACCEPTANCE
    draft_s: float = 0.0
    """Of one token."""
    _weight: float = FIRST_WEIGHT
    _steps: dict[int, Trend] = field(default_factory=dict)
    _since_probe: int = 0
    num_right: int = 0
    num_wrong: int = 0

    def told(self, *, is_right: bool | None) -> None:
        """Another token is known, and whether its guess was right; None: it was not guessed."""
        self._since_probe += 1
        if is_right is None:
            return
        self.num_right += is_right
        self.num_wrong += not is_right
        self._weight = min(MEMORY, self._weight + 1)
        self.acceptance += (is_right - self.acceptance) / self._weight

    def drafted(self, num_tokens: int, seconds: float) -> None:
        """Guessing so many tokens took so long."""
        each = seconds / num_tokens
        self.draft_s = each if not self.draft_s else self.draft_s + (each - self.draft_s) / 8

    def computed(self, index: int, num_tokens: int, seconds: float) -> None:
        """A hop took so long for one step of so many tokens."""
        trend = self._steps.setdefault(index, Trend(keep=1 - 1 / MEMORY))
        trend.note(num_tokens, seconds)

    def interval_s(self, size: int) -> float:
        """How far apart windows of that size must be sent."""
        slowest = max((steps.at(size) for steps in self._steps.values()), default=0.0)
        return PACE * (slowest + OVERHEAD_S)

    def gain(self, size: int, loop_s: float, plain_s: float) -> float:
        """How many times faster windows of that size are than no guesses at all."""
        a = min(0.99, self.acceptance)
        window_s = max(size * self.draft_s, self.interval_s(size))
        token_s = sum(max(0.0, steps.token_s or 0.0) for steps in self._steps.values())
        first_s = loop_s + (size - 1) * (token_s + self.draft_s)
        return plain_s / (1 - a) / (first_s + window_s * a**size / (1 - a**size))

    def window(self, num_ahead: int, loop_s: float, plain_s: float) -> int:
        """How many tokens to guess next, when so many are under way; 0: none, it does not pay.

        loop_s: of a step that the client sends; plain_s: what a token takes without guesses
        """
        a = min(0.99, max(0.01, self.acceptance))
        least, most = MIN_CHANCE
        chance = min(most, max(least, WORTH * self.interval_s(1) / loop_s))
        room = min(MAX_AHEAD, math.ceil(math.log(chance) / math.log(a))) - num_ahead
        return max(0, min(room, self._size(loop_s, plain_s)))

    def _size(self, loop_s: float, plain_s: float) -> int:
        if not self.draft_s:
            return 1  # what a guess takes is not known yet
        size = max(SIZES, key=lambda each: self.gain(each, loop_s, plain_s))
        if self.gain(size, loop_s, plain_s) >= MIN_GAIN:
            return size
        if self._since_probe >= PROBE_EVERY:
            self._since_probe = 0
            return PROBE_TOKENS
        return 0
