"""``p2pnode model``: what can be said of a model before anybody serves it."""

from __future__ import annotations

from math import isfinite
from typing import Annotated

import typer

from p2pnode.cli.exits import FAILED
from p2pnode.cli.options import Json
from p2pnode.cli.output import Output
from p2pnode.log import escape

app = typer.Typer(help="Models that can be served.", rich_markup_mode=None)


@app.callback()
def model() -> None:
    """Models that can be served."""


@app.command()
def check(
    name: Annotated[
        str, typer.Argument(metavar="FAMILY|DIR", help="A transformers family, or a model folder.")
    ],
    *,
    json: Json = False,
) -> None:
    """Prove that a family can be split, on a tiny random model of it."""
    from p2pnode.model.check import check_family  # heavy: torch

    result = check_family(name)
    delta = result.max_delta_logit if isfinite(result.max_delta_logit) else None
    output = Output(as_json=json)
    output.result(
        {
            "family": result.family,
            "ok": result.ok,
            "splits": list(result.splits),
            "max_delta_logit": delta,
            "reason": result.reason,
        }
    )
    family = escape(result.family)
    if not result.ok:
        output.say(f"{family}: no; {escape(result.reason, 500)}")
        raise typer.Exit(FAILED)
    output.say(
        f"{family}: yes; {len(result.splits)} ways to split it, "
        f"logits differ by at most {delta:.1e} from the unsplit model's"
    )
