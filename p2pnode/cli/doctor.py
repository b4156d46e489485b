"""``p2pnode doctor``: why it does not work, or is slow."""

from __future__ import annotations

from typing import Annotated

import typer

from p2pnode.cli.options import Home, Invite, Join, Json, Lan, Model, client_swarm
from p2pnode.cli.output import Output

RttLimit = Annotated[
    float,
    typer.Option(
        "--rtt-ms",
        metavar="MS",
        min=1.0,
        max=10_000.0,
        help="The longest round trip to a hop that is not called a cause.",
    ),
]


def doctor(
    *,
    model: Model = None,
    join: Join = None,
    invite: Invite = None,
    lan: Lan = False,
    rtt_ms: RttLimit = 500.0,
    home: Home = None,
    json: Json = False,
) -> None:
    """Say what is in the way, and what to do.

    Checks this machine and the swarm, then generates through a chain of peers and measures each
    hop. Takes less than 15 s, needs no model files, and works without a swarm.
    """
    swarm = client_swarm(join, home, invite, lan=lan)
    from p2pnode.cli.doctor_face import examine_here, show  # heavy: torch, hivemind
    from p2pnode.cli.run import run_async

    report = run_async(examine_here(swarm, model, rtt_ms / 1e3))
    show(report, Output(as_json=json))
