"""What `p2pnode bench` runs and shows; imported by its command only, since it needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from p2pnode.bench import run_bench
from p2pnode.bench.compare import change, read_earlier
from p2pnode.cli.output import Output
from p2pnode.cli.run import run_async

COLUMNS = ("METRIC", "VALUE", "UNIT", "BASELINE", "RATIO", "GOAL", "MET", "SPREAD")
COMPARED = ("METRIC", "VALUE", "EARLIER", "CHANGE", "UNIT", "GOAL", "MET", "SPREAD")


def show_bench(
    name: str, *, is_quick: bool, compare: Path | None, plot: Path | None, as_json: bool
) -> None:
    """Run a benchmark and show its rows, beside those of an earlier run if there is one."""
    output = Output(as_json=as_json)
    earlier = read_earlier(compare) if compare else None
    result = run_async(run_bench(name, output.note, is_quick=is_quick, plot=plot))
    if earlier is not None:
        for row in result["rows"]:
            row["earlier"], row["change"] = change(row, earlier)
    output.event("result", **result)
    if earlier is None:
        output.table(COLUMNS, [_row(row) for row in result["rows"]])
    else:
        output.table(COMPARED, [_compared(row) for row in result["rows"]])


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    figures = [row["value"], row["unit"], row["baseline"], row["ratio"], row["goal"]]
    return (row["metric"], *map(_figure, figures), _met(row), _figure(row["spread"]))


def _compared(row: Mapping[str, Any]) -> tuple[str, ...]:
    figures = [row["value"], row["earlier"], row["change"], row["unit"], row["goal"]]
    return (row["metric"], *map(_figure, figures), _met(row), _figure(row["spread"]))


def _met(row: Mapping[str, Any]) -> str:
    return {True: "yes", False: "no", None: ""}[row["met"]]


def _figure(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
