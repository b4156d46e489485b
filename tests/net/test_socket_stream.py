"""A socket's bytes: on demand, into a sink's own buffers, and held back while nobody takes them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from p2pnode.errors import PeerError
from p2pnode.model.tensor import from_torch, to_torch
from p2pnode.net.libp2p_stream import LibP2PStream
from p2pnode.net.link import Link
from p2pnode.net.memory import fake_peer_id
from p2pnode.net.socket_stream import MAX_UNREAD_BYTES, SocketStream
from p2pnode.types import Tensor
from p2pnode.wire.messages import CHAIN, Step
from p2pnode.wire.reader import HEAD_BYTES

Pair = tuple[SocketStream, SocketStream]


@asynccontextmanager
async def connected(near: SocketStream | None = None) -> AsyncIterator[Pair]:
    """Both ends of a unix socket."""
    loop, accepted = asyncio.get_running_loop(), asyncio.Queue[SocketStream]()
    with tempfile.TemporaryDirectory(prefix="p2p-", dir="/tmp") as folder:
        path = str(Path(folder) / "s.sock")
        server = await loop.create_unix_server(lambda: SocketStream(accepted.put_nowait), path)
        _, near = await loop.create_unix_connection(lambda: near or SocketStream(), path)
        far = await accepted.get()
        try:
            yield near, far
        finally:
            near.abort()
            far.abort()
            server.close()


class Heap:
    """A sink of so many bytes."""

    def __init__(self, num_bytes: int) -> None:
        self.data = bytearray(num_bytes)
        self.have = 0
        self.full = asyncio.Event()

    def buffer(self) -> memoryview:
        return memoryview(self.data)[self.have :] if self.have < len(self.data) else SPARE

    def filled(self, num_bytes: int) -> None:
        self.have += num_bytes
        if self.have >= len(self.data):
            self.full.set()


SPARE = memoryview(bytearray(64))


async def test_what_was_not_asked_for_yet_goes_to_the_sink_first() -> None:
    async with connected() as (near, far):
        near.write(b"head", memoryview(b"and"), bytearray(b" body"))
        assert await far.read_exactly(4) == b"head"
        await asyncio.sleep(0)
        sink = Heap(8 + 300_000)
        async with asyncio.TaskGroup() as tasks:
            receiving = tasks.create_task(far.receive(sink))
            near.write(bytes(range(250)) * 1200)
            await sink.full.wait()
            receiving.cancel()
        assert sink.data[:8] == b"and body"
        assert sink.data[8:] == bytes(range(250)) * 1200
        near.write(b"tail")
        assert await far.read_exactly(4) == b"tail", "without a sink it is read on demand again"


async def test_who_writes_waits_while_nobody_reads() -> None:
    async with connected() as (near, far):
        num_bytes = 20 * MAX_UNREAD_BYTES
        near.write(bytes(num_bytes))
        sink = Heap(num_bytes)
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(near.drain())
            done, _ = await asyncio.wait([waiting], timeout=0.05)
            assert not done
            receiving = tasks.create_task(far.receive(sink))
            await sink.full.wait()
            await waiting
            receiving.cancel()


async def test_the_end_is_raised_after_what_came_before_it() -> None:
    async with connected() as (near, far):
        near.write(b"last words")
        near.close()
        sink = Heap(10)
        with pytest.raises(EOFError):
            await far.receive(sink)
        assert sink.data == b"last words"
        assert not far.is_open
        with pytest.raises(EOFError):
            await far.read_exactly(1)


async def test_who_waits_to_write_learns_that_the_socket_is_gone() -> None:
    async with connected() as (near, far):
        near.write(bytes(20 * MAX_UNREAD_BYTES))
        far.abort()
        with pytest.raises(OSError, match=r"gone|pipe|reset"):
            await near.drain()


class Keeper:
    """Keeps the last message of a link."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[Step] = asyncio.Queue()

    def on_message(self, link: Link, message: Step) -> None:
        self.came.put_nowait(message)

    def on_lost(self, link: Link, error: PeerError) -> None:
        pass


class Watched(SocketStream):
    """Notes where the loop puts bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.filled: list[tuple[int, int]] = []
        self._at = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        buffer: memoryview = super().get_buffer(sizehint)
        self._at = np.frombuffer(buffer, np.uint8).ctypes.data
        return buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.filled.append((self._at, nbytes))
        super().buffer_updated(nbytes)


@pytest.mark.parametrize("num_bytes", [8192, 1 << 20])
async def test_torch_computes_on_the_memory_that_the_socket_was_read_into(num_bytes: int) -> None:
    keeper, watched = Keeper(), Watched()
    values = bytes(range(256)) * (num_bytes // 256)
    plain = to_torch(Tensor("float32", (num_bytes // 8192, 2048), values)).abs()
    step = Step(session=b"s" * 16, layer=0, epoch=0, position=0, entry=from_torch(plain))
    async with connected(watched) as ends, asyncio.TaskGroup() as tasks:
        streams = [LibP2PStream(fake_peer_id(number), ends[number], set()) for number in range(2)]
        near, far = (Link(stream, CHAIN, keeper) for stream in streams)
        running = [tasks.create_task(link.run()) for link in (near, far)]
        await asyncio.sleep(0.01)  # they receive now
        far.send(step)
        message = await keeper.came.get()
        for task in running:
            task.cancel()
    received = to_torch(message.entry)
    assert bytes(message.entry.data) == plain.numpy().tobytes()
    start, stop = received.data_ptr(), received.data_ptr() + num_bytes
    direct = sum(size for at, size in watched.filled if start <= at and at + size <= stop)
    assert direct >= num_bytes - HEAD_BYTES * (num_bytes // 60_000 + 1)
