"""``p2pnode bench``: measurements, each next to the baseline it is about."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from p2pnode.cli.options import Json
from p2pnode.cli.output import Output


def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help="loopback or resilience.")],
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer and smaller rounds; for resilience.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure a swarm here next to one process without us."""
    from p2pnode.bench import run_bench  # heavy: torch
    from p2pnode.cli.run import run_async

    output = Output(as_json=json)
    result = run_async(run_bench(name, output.note, is_quick=quick))
    output.event("result", **result)
    output.table(
        ("METRIC", "VALUE", "UNIT", "BASELINE", "RATIO", "GOAL", "MET", "SPREAD"),
        [_row(row) for row in result["rows"]],
    )


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    figures = [row["value"], row["unit"], row["baseline"], row["ratio"], row["goal"]]
    met = {True: "yes", False: "no", None: ""}[row["met"]]
    return (row["metric"], *map(_figure, figures), met, _figure(row["spread"]))


def _figure(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
