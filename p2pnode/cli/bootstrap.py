"""``p2pnode bootstrap``: a node without a model, for others to join through."""

from __future__ import annotations

from p2pnode.cli.options import Announce, Home, Host, Invite, Join, Json, Key, Lan, Port
from p2pnode.cli.output import Output
from p2pnode.cli.serve import node_swarm
from p2pnode.config import NodeConfig


def bootstrap(
    *,
    join: Join = None,
    invite: Invite = None,
    lan: Lan = False,
    host: Host = None,
    port: Port = None,
    announce: Announce = None,
    key: Key = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Help others find the swarm until Ctrl-C; needs no model."""
    swarm = node_swarm(
        join=join,
        invite=invite,
        lan=lan,
        host=host,
        port=port,
        announce=announce,
        key=key,
        home=home,
    )
    from p2pnode.cli.node_face import run_node  # heavy: torch, hivemind

    run_node(NodeConfig(cache=swarm.home.cache), swarm, Output(as_json=json))
