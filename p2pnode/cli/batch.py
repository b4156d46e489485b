"""``p2pnode batch``: many requests from a file, their answers into another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from p2pnode.cli.generate import Draft
from p2pnode.cli.options import Home, Invite, Join, Json, Lan, Model, client_swarm
from p2pnode.cli.output import Output
from p2pnode.config import ClientConfig

AtOnce = Annotated[
    int, typer.Option("--concurrent", min=1, max=64, help="Requests that are asked at a time.")
]


def batch(
    requests: Annotated[
        Path, typer.Argument(metavar="IN", help="Requests, one per line, in OpenAI's batch format.")
    ],
    answers: Annotated[
        Path, typer.Argument(metavar="OUT", help="The answers; those it has are not asked again.")
    ],
    *,
    model: Model = None,
    join: Join = None,
    invite: Invite = None,
    lan: Lan = False,
    concurrent: AtOnce = 4,
    draft: Draft = "auto",
    home: Home = None,
    json: Json = False,
) -> None:
    """Answer a file of requests; if killed, go on where it was."""
    swarm = client_swarm(join, home, invite, lan=lan)
    config = ClientConfig(swarm=swarm, cache=swarm.home.cache, draft=draft)
    from p2pnode.cli.batch_face import answer_all  # heavy: torch

    answer_all(requests, answers, config, model, concurrent, Output(as_json=json))
