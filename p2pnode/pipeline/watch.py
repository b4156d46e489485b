"""How late is late: the clock of a step on its way through the hops. Pure; it is told the time.

Every hop says how far it is (`Progress`), so the client knows for each one how long after a step's
start its word usually comes, and how much that varies. Of the first hop that is due and silent:
- later than mean + 2 sigma: worth asking its standby as well (a hedge; Dean and Barroso, "The tail
  at scale", 2013);
- later than mean + 4 sigma, within bounds: it is taken for dead.
When the hop before was late itself, the time is counted from there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

SMOOTHING = 0.1
MIN_SIGMA_S = 0.002
MIN_SIGMA = 0.05
"""Of the mean."""
FIRST_SIGMA = 0.5
"""Of the mean, after one measurement (as RFC 6298 begins)."""
HEDGE_SIGMAS = 2.0
DEAD_SIGMAS = 4.0
FLOOR_LOOPS = 1.0
FLOOR_LOOPS_ALONE = 2.5
"""A hop without a standby is dearer to replace, so it is waited for a little longer."""
CAP_LOOPS = 4.0
MAX_LENIENCY = 32.0
SLOW_SHARE = 0.2
"""Of the loop: a hop later than this several times in a row has become slow."""
KNOWN_STEPS = 8
"""What is usual is known after so many steps; nobody is called slow before."""


@dataclass(slots=True)
class Lag:
    """How long something takes: mean and variance with exponential weights."""

    num: int = 0
    mean_s: float = 0.0
    _variance: float = 0.0

    def note(self, seconds: float) -> None:
        """It took so long this time."""
        self.num += 1
        weight = max(SMOOTHING, 1 / self.num)
        off = seconds - self.mean_s
        self.mean_s += weight * off
        self._variance = (1 - weight) * (self._variance + weight * off * off)

    @property
    def sigma_s(self) -> float:
        """The deviation, never taken for nothing at all."""
        if self.num == 1:
            return max(MIN_SIGMA_S, FIRST_SIGMA * self.mean_s)
        return max(MIN_SIGMA_S, MIN_SIGMA * self.mean_s, math.sqrt(self._variance))


@dataclass(frozen=True, slots=True)
class Due:
    """The first hop whose word is due, and when to act."""

    index: int
    hedge_at: float
    dead_at: float


@dataclass(slots=True)
class Watch:
    """Of one configuration of a chain: the lags of its hops, and the step on its way."""

    num_hops: int
    floor_s: float
    """No hop is taken for dead before it is late by so much."""
    lags: list[Lag] = field(default_factory=list)
    leniency: float = 1.0
    """Rises with each hop that was given up for its silence: perhaps we are slow ourselves."""
    late_steps: list[int] = field(default_factory=list)
    """How often in a row each hop was much later than it used to be."""
    _began: float = 0.0
    _heard: list[float | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lags = [Lag() for _ in range(self.num_hops)]
        self._heard = [None] * self.num_hops
        self.late_steps = [0] * self.num_hops

    def start(self, now: float) -> None:
        """A step of one token goes out."""
        self._began = now
        self._heard = [None] * self.num_hops

    def hear(self, index: int, now: float) -> None:
        """That hop has done the step."""
        if self._heard[index] is None:
            self._heard[index] = now

    def end(self, now: float, began: float) -> None:
        """The answer is here: learn from the step, which began at that time."""
        self._began, self._heard[-1] = began, now
        for index in range(self.num_hops):
            self.late_steps[index] = self.late_steps[index] + 1 if self._is_late(index) else 0
        for lag, heard in zip(self.lags, self._heard, strict=True):
            if heard is not None:
                lag.note(max(0.0, heard - began))
        self.leniency = max(1.0, self.leniency * 0.95)

    def _is_late(self, index: int) -> bool:
        step_s, lag = self.step_s(index), self.lags[index]
        if step_s is None or lag.num < KNOWN_STEPS:
            return False
        usual_s = lag.mean_s - (self.lags[index - 1].mean_s if index else 0.0)
        return step_s - usual_s > max(SLOW_SHARE * self.lags[-1].mean_s, HEDGE_SIGMAS * lag.sigma_s)

    def step_s(self, index: int) -> float | None:
        """How long the last step took at that hop, as heard here; None when not heard."""
        heard = self._heard[index]
        before = self._heard[index - 1] if index else self._began
        return max(0.0, heard - before) if heard is not None and before is not None else None

    def give_up(self) -> None:
        """A hop was taken for dead: be slower to say so next time."""
        self.leniency = min(MAX_LENIENCY, self.leniency * 2)

    def replace(self, index: int) -> None:
        """Another peer is that hop now: expect the same of it, with less certainty."""
        for lag in self.lags[index:]:
            lag.num = min(lag.num, 1)
        self.late_steps = [0] * self.num_hops

    @property
    def is_learned(self) -> bool:
        """Whether anything is known about how long a step takes."""
        return self.lags[-1].num > 0

    def has_heard(self, index: int) -> bool:
        """Whether that hop has done the last step."""
        return self._heard[index] is not None

    def due(self, has_standby: list[bool], excess_s: list[float]) -> Due:
        """Whom we wait for, once it `is_learned` how long that takes.

        excess_s: by how much each hop computes longer than is usual for its layers.
        """
        index = self._first_silent()
        lag = self.lags[index] if self.lags[index].num else self.lags[-1]
        expected_at = self._began + lag.mean_s + self._delay_s(index)
        loop_s = self.lags[-1].mean_s
        floor_loops = FLOOR_LOOPS if has_standby[index] else FLOOR_LOOPS_ALONE
        floor_s = max(self.floor_s, floor_loops * loop_s)
        cap_s = max(self.floor_s, CAP_LOOPS * loop_s)
        margin_s = min(cap_s, max(floor_s, DEAD_SIGMAS * lag.sigma_s)) * self.leniency
        hedge_s = HEDGE_SIGMAS * lag.sigma_s - max(0.0, excess_s[index])
        return Due(index, expected_at + hedge_s, expected_at + margin_s)

    def _first_silent(self) -> int:
        """The hop after the last one that was heard of: data has passed all before it."""
        heard = [index for index, at in enumerate(self._heard) if at is not None]
        return min(heard[-1] + 1 if heard else 0, self.num_hops - 1)

    def _delay_s(self, index: int) -> float:
        """By how much the hop before was late."""
        before = self._heard[index - 1] if index else None
        if before is None:
            return 0.0
        return max(0.0, before - self._began - self.lags[index - 1].mean_s)
