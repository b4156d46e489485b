"""The seam under everything: byte streams between peers, named by a protocol string.

Two implementations: `net.p2pd` (libp2p, for real) and `net.memory` (in one process, with latency,
partitions, and p2pd's bad habits). What callers must expect of both: a reset looks like a clean
end, writes to a frozen peer are accepted, silence is never noticed. END frames, heartbeats and
deadlines live above this seam.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from p2pnode.types import PeerId

FOREIGN = "does not speak our protocol: it is in a private swarm (see --invite), or no p2pnode"
"""What is said of a peer that can be reached and does not serve a protocol that all of us do."""


class Sink(Protocol):
    """Where the bytes of a stream go, without a copy in between."""

    def buffer(self) -> memoryview:
        """Where the next bytes are to be put; never empty."""
        ...

    def filled(self, num_bytes: int) -> None:
        """So many were put there; must not block."""
        ...


class ByteStream(Protocol):
    """One bidirectional stream to one authenticated peer."""

    @property
    def peer(self) -> PeerId:
        """Who is at the other end; proven by the transport."""
        ...

    async def read_exactly(self, num_bytes: int) -> bytes:
        """Read so many bytes; raises PeerLost when the stream ends before."""
        ...

    async def receive(self, sink: Sink) -> None:
        """Put all that comes into the sink's buffers until cancelled; raises PeerLost at the end.

        While nobody reads or receives, the peer has to wait.
        """
        ...

    def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Hand bytes to the stream without waiting; raises PeerLost when it is known to be gone.

        They must not change afterwards: they may be sent later, from where they are.
        """
        ...

    async def drain(self) -> None:
        """Wait until the buffer of written bytes is small again; raises PeerLost."""
        ...

    def close(self) -> None:
        """Close at once. Bytes not yet sent may be lost: wait for the peer's END first."""
        ...


StreamHandler = Callable[[ByteStream], Awaitable[None]]
"""Serves one inbound stream until it ends; the transport closes the stream afterwards."""


class Transport(Protocol):
    """This process's place on the network. An ``async with`` block holds it open."""

    @property
    def peer(self) -> PeerId:
        """Our own id."""
        ...

    @property
    def addresses(self) -> tuple[str, ...]:
        """Our dialable addresses, best first, each ending in ``/p2p/<our id>``; may be empty."""
        ...

    async def connect(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """Make sure that a connection exists; raises PeerLost. No-op when connected."""
        ...

    async def open_stream(self, peer: PeerId, protocol: str) -> ByteStream:
        """Open a stream to a connected peer; raises PeerLost (PeerForeign), PeerTimeout.

        Over a connection to the incarnation of a peer that was killed, which nobody has noticed
        yet, the first stream fails, or ends at once; the next ``connect`` dials the living one.
        """
        ...

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Answer inbound streams of this protocol; each runs as a task of the transport."""
        ...

    async def protect(self, peer: PeerId, is_protected: bool) -> None:
        """Keep the connection to that peer when there are too many, or no longer."""
        ...

    async def wait_closed(self) -> None:
        """Return never while healthy; raises DaemonDied when the transport has failed for good."""
        ...
