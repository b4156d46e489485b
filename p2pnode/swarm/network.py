"""What a participant needs of the network, as one resource: a transport and a directory on it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from p2pnode.dht.directory import Directory
from p2pnode.net.transport import Transport


@dataclass(frozen=True, slots=True)
class Joined:
    """An open transport whose directory has joined a swarm."""

    transport: Transport
    directory: Directory


class Network(Protocol):
    """Opens a `Joined`; again after it has failed. Real: `P2PNetwork`; in memory: the lab's."""

    def join(self) -> AbstractAsyncContextManager[Joined]:
        """Open the transport and join; raises JoinFailed, PortBusy, DaemonDied."""
        ...
