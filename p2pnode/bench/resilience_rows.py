"""Rows of `p2pnode bench resilience`: goals that depend on other figures, and what did not work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from p2pnode.bench.result import Row, figure
from p2pnode.lab.result import Trial

STANDBY_EXTRA_MS = 250.0
DETECTION_FLOOR_MS = 250.0
DETECTION_LOOPS = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Where and how thoroughly it is measured."""

    note: Callable[[str], None]
    cache: Path
    records: Path
    """Where sweeps are kept."""
    commit: str
    transport: str
    """``namespaces`` or ``memory``; where real processes are possible they are used."""
    is_quick: bool = False
    num_nodes: int = 1000
    """Of the large simulations."""


def goal_row(row: Row, *, met: bool, goal: str) -> Row:
    """The same with a goal in words."""
    return replace(row, goal=goal, met=met)


def at_most_because(
    metric: str, values: Sequence[float], unit: str, limit: float, because: str
) -> Row:
    """A row whose median must not exceed a limit that follows from other figures."""
    row = figure(metric, values, unit)
    is_met = row.value is not None and row.value <= limit
    return goal_row(row, met=is_met, goal=f"<= {limit:.4g} ({because})")


def not_measured(metric: str, why: str) -> Row:
    """A row that says what stood in the way."""
    return Row(
        metric=metric,
        value=None,
        unit="",
        baseline=None,
        ratio=None,
        goal=None,
        met=False,
        spread=f"not measured: {why[:300]}",
    )


def with_remark(row: Row, remark: str) -> Row:
    """The same, and how it was measured."""
    return replace(row, spread=f"{row.spread}; {remark}" if row.spread else remark)


def standby_limit_ms(loop_ms: float) -> tuple[float, str]:
    """The longest stall after a kill with a standby, and why."""
    because = f"2 loops of {loop_ms:.0f} ms + {STANDBY_EXTRA_MS:g}"
    return 2.0 * loop_ms + STANDBY_EXTRA_MS, because


def detection_limit_ms(loop_ms: float) -> float:
    """How long silence may go unnoticed."""
    return max(DETECTION_FLOOR_MS, DETECTION_LOOPS * loop_ms)


def silence_limit_ms(loop_ms: float) -> tuple[float, str]:
    """The longest stall after a peer has fallen silent, with a standby, and why."""
    limit_ms = detection_limit_ms(loop_ms)
    because = f"detection {limit_ms:.0f} + 2 loops of {loop_ms:.0f} ms"
    return limit_ms + 2.0 * loop_ms, because


def is_right(trial: Trial) -> bool:
    """Whether its text is complete and the right one."""
    return trial.identical and not trial.failed and not trial.hung
