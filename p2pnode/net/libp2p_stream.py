"""A libp2p stream, as p2pd gives it to us: a connected unix socket."""

from __future__ import annotations

import asyncio

from p2pnode.errors import PeerLost
from p2pnode.types import PeerId

FLUSH_TIMEOUT_S = 1.0


class LibP2PStream:
    """`transport.ByteStream` on a socket; ``siblings`` is the set of open ones that it is in."""

    def __init__(
        self,
        peer: PeerId,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        siblings: set[LibP2PStream],
    ) -> None:
        self._peer = peer
        self._reader = reader
        self._writer = writer
        self._transport = writer.transport
        self._siblings = siblings
        siblings.add(self)

    @property
    def peer(self) -> PeerId:
        """Who is at the other end; libp2p has proven it."""
        return self._peer

    async def read_exactly(self, num_bytes: int) -> bytes:
        """Read so many bytes; raises PeerLost when the stream ends before."""
        try:
            return await self._reader.readexactly(num_bytes)
        except (OSError, EOFError) as error:
            raise PeerLost(self._peer, "the stream ended") from error

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Hand bytes over without waiting; raises PeerLost when the stream is known to be gone."""
        if self._transport.is_closing() or self._reader.at_eof():
            raise PeerLost(self._peer, "the stream is closed")
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until few written bytes are left; raises PeerLost."""
        try:
            await self._writer.drain()
        except OSError as error:
            raise PeerLost(self._peer, "the stream is closed") from error

    def close(self) -> None:
        """Close at once; what is not sent within `FLUSH_TIMEOUT_S` is lost."""
        if self not in self._siblings:
            return
        self._siblings.discard(self)
        self._transport.close()
        if self._transport.get_write_buffer_size():
            loop = asyncio.get_running_loop()
            loop.call_later(FLUSH_TIMEOUT_S, self._transport.abort)
