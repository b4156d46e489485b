"""The least that a chain of processes costs: plain sockets, one thread hand-over per hop.

Each relay is a process of its own that reads a frame of a fixed size, hands it to a thread and
back, and writes it to the next one; the last writes to us. No framing, no encryption, no model.
Run as ``python -m p2pnode.bench.relay SIZE PORT``: it prints the port that it listens on, and
writes to ``PORT``.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import uvloop

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Relays:
    """A ring of relays through which we send frames."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    num_bytes: int

    async def run(self, num_frames: int) -> list[float]:
        """Send frames one after the other; seconds that each took to come around."""
        frame, times = bytes(self.num_bytes), []
        for _ in range(num_frames):
            began = time.perf_counter()
            self.writer.write(frame)
            await self.reader.readexactly(self.num_bytes)
            times.append(time.perf_counter() - began)
        return times


@asynccontextmanager
async def relays(num_hops: int, num_bytes: int) -> AsyncIterator[Relays]:
    """Start the processes; they end with the block."""
    arrived: asyncio.Queue[asyncio.StreamReader] = asyncio.Queue()
    async with AsyncExitStack() as stack:
        server = await asyncio.start_server(
            lambda reader, writer: arrived.put_nowait(reader), HOST, limit=4 * num_bytes
        )
        stack.callback(server.close)
        port = server.sockets[0].getsockname()[1]
        for _ in range(num_hops):
            port = await stack.enter_async_context(_process(num_bytes, port))
        _, writer = await asyncio.open_connection(HOST, port)
        stack.callback(writer.close)
        yield Relays(await arrived.get(), writer, num_bytes)


@asynccontextmanager
async def _process(num_bytes: int, next_port: int) -> AsyncIterator[int]:
    arguments = ("-m", "p2pnode.bench.relay", str(num_bytes), str(next_port))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        line = await process.stdout.readline() if process.stdout else b""
        yield int(line)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class _Relay(asyncio.Protocol):
    """Collects a frame, hands it over, sends it on."""

    def __init__(self, num_bytes: int, send: Callable[[bytes], None]) -> None:
        self._num_bytes = num_bytes
        self._send = send
        self._received = bytearray()
        self._thread = ThreadPoolExecutor(1)
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= self._num_bytes:
            frame = bytes(self._received[: self._num_bytes])
            del self._received[: self._num_bytes]
            done = self._loop.run_in_executor(self._thread, bytes, frame)
            done.add_done_callback(lambda made: self._send(made.result()))


class _Following(asyncio.Protocol):
    """The connection to the next one."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


async def _relay(num_bytes: int, next_port: int) -> None:
    loop = asyncio.get_running_loop()
    transport, following = await loop.create_connection(_Following, HOST, next_port)
    server = await loop.create_server(lambda: _Relay(num_bytes, transport.write), HOST, 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await following.lost.wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_relay(int(sys.argv[1]), int(sys.argv[2])))
