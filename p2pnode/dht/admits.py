"""Who has to do with a directory: everybody, or the members of a private swarm."""

from __future__ import annotations

from collections.abc import Callable

from p2pnode.types import PeerId

Admits = Callable[[PeerId, bool], bool]
"""(who, whether it must be one that may serve): whether it has shown that it is in our swarm."""


def everybody(peer: PeerId, serves: bool) -> bool:
    """In a public swarm all may do all."""
    return True
