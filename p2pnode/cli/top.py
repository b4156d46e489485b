"""``p2pnode top``: the swarm, live in the terminal."""

from __future__ import annotations

import sys

from p2pnode.cli.options import Home, Invite, Join, Json, Lan, client_swarm
from p2pnode.cli.output import Output
from p2pnode.config import ClientConfig
from p2pnode.errors import BadRequest


def top(
    *,
    join: Join = None,
    invite: Invite = None,
    lan: Lan = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show the swarm, live: layers, peers and how they are."""
    if not json and not sys.stdout.isatty():
        raise BadRequest("top draws on a terminal; for scripts there is --json, or p2pnode status")
    swarm = client_swarm(join, home, invite, lan=lan)
    from p2pnode.cli.run import run_async
    from p2pnode.cli.top_face import run_top  # heavy: hivemind
    from p2pnode.swarm.p2p_network import client_network

    config = ClientConfig(swarm=swarm, cache=swarm.home.cache)
    run_async(run_top(client_network(config), config, Output(as_json=json)))
