"""``p2pnode bench``: measurements, each next to the baseline it is about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from p2pnode.cli.options import Json


def bench(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="loopback, resilience, wan, throughput, prefill, speculation, gateway, wire or "
            "plan.",
        ),
    ],
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer and smaller rounds; not for loopback, wire.")
    ] = False,
    compare: Annotated[
        Path | None,
        typer.Option("--compare", metavar="FILE", help="Show changes since what --json wrote."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw tokens/s by round trip; speculation."),
    ] = None,
    json: Json = False,
) -> None:
    """Measure a swarm here next to one process without us."""
    from p2pnode.cli.bench_face import show_bench  # heavy: torch

    show_bench(name, is_quick=quick, compare=compare, plot=plot, as_json=json)
