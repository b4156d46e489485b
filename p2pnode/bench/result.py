"""What a benchmark says: rows with a goal, and the machine they were measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import psutil
import torch
import transformers

from p2pnode.version import VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure. ``value`` is what the goal is about."""

    metric: str
    value: float | None
    """None: it could not be measured, and ``spread`` says why."""
    unit: str
    baseline: float | None
    """The same thing without us, from the same run."""
    ratio: float | None
    goal: str | None
    """For people, e.g. ``<= 1.5``; None for a figure that only explains another one."""
    met: bool | None
    spread: str
    """Smallest to largest of the rounds."""


def at_most(
    metric: str,
    values: Sequence[float],
    unit: str,
    limit: float,
    baseline: float | None = None,
    ratio: float | None = None,
) -> Row:
    """A row whose median must not exceed ``limit``."""
    row = figure(metric, values, unit, baseline)
    return replace(row, ratio=ratio, goal=f"<= {limit:g}", met=median(values) <= limit)


def at_least(
    metric: str,
    values: Sequence[float],
    unit: str,
    limit: float,
    baseline: float | None = None,
) -> Row:
    """A row of ratios whose median must reach ``limit``."""
    row = figure(metric, values, unit, baseline)
    return replace(row, ratio=row.value, goal=f">= {limit:g}", met=median(values) >= limit)


def figure(metric: str, values: Sequence[float], unit: str, baseline: float | None = None) -> Row:
    """A row without a goal: the median of the rounds."""
    return Row(
        metric=metric,
        value=median(values),
        unit=unit,
        baseline=baseline,
        ratio=None,
        goal=None,
        met=None,
        spread=f"{min(values):.3g} to {max(values):.3g}",
    )


def result(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows and environment, ready for JSON."""
    return {"environment": environment(), "rows": [asdict(row) for row in rows]}


def environment() -> dict[str, Any]:
    """What a reader must know to repeat the figures."""
    return {
        "p2pnode": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "load_before": round(psutil.getloadavg()[0], 2),
        "memory_bytes": psutil.virtual_memory().total,
    }
