"""Nodes that are there, and are not for us."""

from __future__ import annotations

from collections.abc import Iterable

from p2pnode.errors import NotMember, P2PNodeError, PeerDenied, PeerForeign


def raise_not_member(errors: Iterable[P2PNodeError], *, is_told: bool) -> None:
    """Raises NotMember, when nobody was met, where that is why.

    is_told: whether we need one of those that were tried; who may start a swarm need not mind that
    a node has become another swarm's
    """
    for error in errors:
        if isinstance(error, PeerDenied) or (isinstance(error, PeerForeign) and is_told):
            raise NotMember(str(error)) from error
