"""What `reach.Reach` stands on: a transport that can tell who is connected, and from where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from p2pnode.net.transport import Transport
from p2pnode.types import PeerId


class Ground(Transport, Protocol):
    """A `Transport` that only dials; both of ours are one."""

    @property
    def p2p(self) -> Any:
        """Hivemind's handle on the daemon; None without one."""
        ...

    def listens_at(self) -> tuple[str, ...]:
        """Where we listen, as this machine's interfaces are now; each ends in ``/p2p/<our id>``.

        Also a client's, which announces none.
        """
        ...

    async def observed(self) -> Mapping[PeerId, tuple[str, ...]]:
        """All connected peers, and where we see each, e.g. ``/ip4/192.0.2.7/udp/4001/quic-v1``.

        The port is the one that it dialled from: behind a NAT, that of the NAT.
        """
        ...

    def may_ask(self, peer: PeerId) -> bool:
        """Whether a connected peer is one that we ask for help: in a private swarm, a member."""
        ...

    async def answers(self, address: str) -> bool:
        """Whether a peer listens at a TCP address, by a connection that proves no identity."""
        ...

    def cut(self, peer: PeerId) -> None:
        """Close all streams to and from a peer: their owners see them end."""
        ...
