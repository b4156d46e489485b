"""``p2pnode model``: what can be said of a model before anybody serves it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from p2pnode.cli.options import Home, Json
from p2pnode.cli.output import Output
from p2pnode.config import home as find_home
from p2pnode.errors import BadRequest

app = typer.Typer(help="Models that can be served.", rich_markup_mode=None)


@app.callback()
def model() -> None:
    """Models that can be served."""


@app.command()
def check(
    name: Annotated[
        str,
        typer.Argument(
            metavar="FAMILY|DIR",
            help="A transformers family, or a model folder; with --wire or --quant any model.",
        ),
    ],
    *,
    wire: Annotated[
        Literal["int8"] | None,
        typer.Option(
            "--wire",
            help="Compare the answers of the whole model with and without this coding between "
            "its hops; `serve --wire` wants this passed.",
        ),
    ] = None,
    quant: Annotated[
        Literal["int8", "nf4"] | None,
        typer.Option(
            "--quant",
            help="Compare the answers of the whole model with and without quantised weights.",
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            "--text", metavar="FILE", help="With --wire or --quant: compare over this text."
        ),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Prove that a family can be split, on a tiny random model of it."""
    from p2pnode.cli import model_checks  # heavy: torch

    output = Output(as_json=json)
    if wire is not None and quant is not None:
        raise BadRequest("--wire and --quant are checked one at a time")
    if wire is not None:
        model_checks.wire(name, wire, text, find_home(home).cache, output)
    elif quant is not None:
        model_checks.quantised(name, quant, text, find_home(home).cache, output)
    else:
        model_checks.split(name, output)
