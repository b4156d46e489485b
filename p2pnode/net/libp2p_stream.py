"""A libp2p stream, as p2pd gives it to us: a connected unix socket."""

from __future__ import annotations

import asyncio

from p2pnode.errors import PeerLost
from p2pnode.net.socket_stream import SocketStream
from p2pnode.net.transport import Sink
from p2pnode.types import PeerId

FLUSH_TIMEOUT_S = 1.0


class LibP2PStream:
    """`transport.ByteStream` on a socket; ``siblings`` is the set of open ones that it is in."""

    def __init__(self, peer: PeerId, socket: SocketStream, siblings: set[LibP2PStream]) -> None:
        self._peer = peer
        self._socket = socket
        self._siblings = siblings
        siblings.add(self)

    @property
    def peer(self) -> PeerId:
        """Who is at the other end; libp2p has proven it."""
        return self._peer

    async def read_exactly(self, num_bytes: int) -> bytes:
        """Read so many bytes; raises PeerLost when the stream ends before."""
        try:
            return await self._socket.read_exactly(num_bytes)
        except (OSError, EOFError) as error:
            raise PeerLost(self._peer, "the stream ended") from error

    async def receive(self, sink: Sink) -> None:
        """See `transport.ByteStream.receive`: the loop reads right into the sink's buffers."""
        try:
            await self._socket.receive(sink)
        except (OSError, EOFError) as error:
            raise PeerLost(self._peer, "the stream ended") from error

    def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Hand bytes over without waiting; raises PeerLost when the stream is known to be gone."""
        if not self._socket.is_open:
            raise PeerLost(self._peer, "the stream is closed")
        self._socket.write(*pieces)

    async def drain(self) -> None:
        """Wait until few written bytes are left; raises PeerLost."""
        try:
            await self._socket.drain()
        except OSError as error:
            raise PeerLost(self._peer, "the stream is closed") from error

    def close(self) -> None:
        """Close at once; what is not sent within `FLUSH_TIMEOUT_S` is lost."""
        if self not in self._siblings:
            return
        self._siblings.discard(self)
        self._socket.close()
        if self._socket.unsent_bytes:
            asyncio.get_running_loop().call_later(FLUSH_TIMEOUT_S, self._socket.abort)
