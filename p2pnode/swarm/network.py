"""What a participant needs of the network, as one resource: a transport and a directory on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from p2pnode.dht.directory import Directory
from p2pnode.net.transport import Transport
from p2pnode.swarm.inside import Inside


@dataclass(frozen=True, slots=True)
class Joined:
    """An open transport whose directory has joined a swarm, or is the first of its own."""

    transport: Transport
    directory: Directory
    has_founded: bool = False
    """Nobody answered: we are a swarm of our own, and keep looking for others."""
    met: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when nodes were met after joining, so that they should hear of us."""
    sign: Callable[[bytes], bytes] | None = None
    """Our signature with the key of our peer id; None for one who tells nothing of itself."""
    inside: Inside | None = None
    """What closes the doors of a private swarm; None in a public one."""


class Network(Protocol):
    """Opens a `Joined`; again after it has failed. Real: `P2PNetwork`; in memory: the lab's."""

    def join(self) -> AbstractAsyncContextManager[Joined]:
        """Open the transport and join; raises JoinFailed, PortBusy, KeyFileError, DaemonDied."""
        ...
