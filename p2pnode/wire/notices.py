"""Messages that belong to no session: what nodes are told, and heartbeats."""

from __future__ import annotations

from p2pnode.types import PeerId
from p2pnode.wire.codec import message


@message("warm")
class Warm:
    """Client to node: be connected to that peer; a session of mine may soon need it."""

    peer: PeerId
    addresses: tuple[str, ...]


@message("draining")
class Draining:
    """Node to the clients of its sessions: I leave; move your sessions, I serve until then."""

    within_s: float
    """When the node will be gone."""


@message("ping")
class Ping:
    """Heartbeat of the control stream; answered at once."""

    number: int


@message("pong")
class Pong:
    """The answer to the ping of that number."""

    number: int
