"""A connected unix socket: bytes on demand, or straight into the buffers of a `Sink`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from p2pnode.net.transport import Sink

MAX_UNREAD_BYTES = 256 * 1024
"""While nobody takes what comes, the daemon has to wait after so much."""
SCRATCH_BYTES = 16 * 1024

Data = bytes | bytearray | memoryview


class SocketStream(asyncio.BufferedProtocol):
    """One socket. Of `read_exactly`, `receive` and `drain` one call each at a time.

    They raise EOFError when the other side has ended, OSError when the socket is gone.
    """

    def __init__(self, on_connected: Callable[[SocketStream], None] | None = None) -> None:
        self._on_connected = on_connected
        self._transport: asyncio.Transport
        self._unread = bytearray()
        self._scratch = memoryview(b"")
        self._sink: Sink | None = None
        self._is_paused = False
        self._error: BaseException | None = None
        """Why nothing more will come."""
        self._is_lost = False
        self._changed = asyncio.Event()
        """Something came, or nothing more will."""
        self._writable = asyncio.Event()

    # --- reading

    async def read_exactly(self, num_bytes: int) -> bytes:
        """Read so many bytes."""
        while len(self._unread) < num_bytes:
            await self._more()
        data = bytes(self._unread[:num_bytes])
        del self._unread[:num_bytes]
        return data

    async def receive(self, sink: Sink) -> None:
        """Put all that comes into the sink's buffers, until nothing more comes."""
        while self._unread:
            buffer = sink.buffer()
            size = min(len(buffer), len(self._unread))
            buffer[:size] = self._unread[:size]
            del self._unread[:size]
            sink.filled(size)
        self._sink = sink
        try:
            while True:
                await self._more()
        finally:
            self._sink = None

    async def _more(self) -> None:
        """Return when something came; raises what has ended the stream."""
        if self._error is not None:
            raise self._error
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        self._changed.clear()
        await self._changed.wait()

    # --- writing

    @property
    def is_open(self) -> bool:
        """Whether it makes sense to write."""
        has_ended = self._error is not None and not self._unread
        return not (self._transport.is_closing() or has_ended)

    @property
    def unsent_bytes(self) -> int:
        """Written, and not yet taken by the kernel."""
        return self._transport.get_write_buffer_size()

    def write(self, *pieces: Data) -> None:
        """Hand bytes over, in one system call where the kernel takes them; never waits.

        They must not change until they are sent: what the kernel does not take is not copied.
        """
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        else:
            self._transport.writelines(pieces)

    async def drain(self) -> None:
        """Wait until few written bytes are left."""
        await self._writable.wait()
        if self._is_lost:
            raise ConnectionResetError("the socket is gone")

    def close(self) -> None:
        """Close when what was written is sent."""
        self._transport.close()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    # --- told by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = cast(asyncio.Transport, transport)
        self._writable.set()
        if self._on_connected is not None:
            self._on_connected(self)

    def get_buffer(self, sizehint: int) -> Any:
        """See `asyncio.BufferedProtocol`."""
        if self._sink is not None:
            return self._sink.buffer()
        if not self._scratch:
            self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        if self._sink is not None:
            self._sink.filled(nbytes)
            return
        self._unread += self._scratch[:nbytes]
        if len(self._unread) > MAX_UNREAD_BYTES and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        self._changed.set()

    def eof_received(self) -> bool:
        """See `asyncio.BufferedProtocol`: we close when we are done with it."""
        self._end(EOFError("the stream ended"))
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        """See `asyncio.BaseProtocol`. What a sink's own bug was is raised in `receive`."""
        self._is_lost = True
        self._end(exc or EOFError("the stream is closed"))
        self._writable.set()

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._writable.set()

    def _end(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._changed.set()
