"""``p2pnode status``: who is there, and which layers are covered."""

from __future__ import annotations

import time

from p2pnode.cli.options import Home, Invite, Join, Json, Lan, client_swarm
from p2pnode.cli.output import Output
from p2pnode.config import ClientConfig


def status(
    *,
    join: Join = None,
    invite: Invite = None,
    lan: Lan = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show peers, their layers, and the layers nobody serves."""
    swarm = client_swarm(join, home, invite, lan=lan)
    from p2pnode.cli.run import run_async
    from p2pnode.cli.swarm_table import read_swarm, show  # heavy: hivemind

    name, view = run_async(read_swarm(ClientConfig(swarm=swarm, cache=swarm.home.cache)))
    show(view, name=name, now=time.time(), output=Output(as_json=json))
