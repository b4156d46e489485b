"""Benchmarks in parts: each measures some rows, and one that cannot be measured says why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from p2pnode.bench.resilience_rows import not_measured
from p2pnode.bench.result import Row, at_least, at_most
from p2pnode.errors import P2PNodeError

DELAYS_MS = (20, 40)
"""One way; goals hold for both."""
ROUNDS = 5
QUICK_ROUNDS = 2
MOST_OF_A_PART_S = 1800.0

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Where and how thoroughly it is measured."""

    note: Note
    folder: Path
    """For models that are made."""
    is_quick: bool = False

    @property
    def num_rounds(self) -> int:
        """How often everything is run in turns."""
        return QUICK_ROUNDS if self.is_quick else ROUNDS

    def few(self, number: int, quick: int) -> int:
        """So many; fewer when it must be quick."""
        return quick if self.is_quick else number


Part = Callable[[Setup], Awaitable[list[Row]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a row's median must reach."""

    limit: float
    is_least: bool

    def row(
        self, metric: str, values: Sequence[float], unit: str, baseline: float | None = None
    ) -> Row:
        """A row with this goal."""
        if self.is_least:
            return at_least(metric, values, unit, self.limit, baseline)
        return at_most(metric, values, unit, self.limit, baseline, median(values))


def least(limit: float) -> Goal:
    """At least so much."""
    return Goal(limit=limit, is_least=True)


def most(limit: float) -> Goal:
    """At most so much."""
    return Goal(limit=limit, is_least=False)


async def measured(parts: Sequence[tuple[str, Part]], setup: Setup) -> list[Row]:
    """The rows of all parts; whatever goes wrong in one is a row of that name."""
    rows: list[Row] = []
    for name, part in parts:
        setup.note(name)
        try:
            async with asyncio.timeout(MOST_OF_A_PART_S):
                rows += await part(setup)
        except TimeoutError:
            rows.append(not_measured(name, "it took too long; is this machine busy?"))
        except (P2PNodeError, OSError, ArithmeticError, LookupError, ValueError) as error:
            rows.append(not_measured(name, f"{type(error).__name__}: {error}"))
    return rows


def at_each_delay(
    metric: str,
    goal: Goal,
    values: Mapping[int, Sequence[float]],
    unit: str,
    baselines: Mapping[int, float],
) -> list[Row]:
    """A row per delay, after the worse one under the metric's own name.

    values, baselines: by the one-way delay in milliseconds
    """
    rows = [
        goal.row(f"{metric}_{delay}ms", values[delay], unit, baselines.get(delay))
        for delay in values
    ]
    choose = min if goal.is_least else max
    worse = choose(rows, key=lambda row: row.value or 0.0)
    remark = f"{worse.spread}; {worse.metric.rpartition('_')[2]}"
    return [replace(worse, metric=metric, spread=remark), *rows]
