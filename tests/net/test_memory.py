"""The in-memory network: what arrives, when, and how badly it behaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from p2pnode.errors import DaemonDied, PeerLost, PeerTimeout
from p2pnode.lab.virtual_time import run_virtual
from p2pnode.net.memory import BLACK_HOLE_S, Line, MemoryNetwork, fake_peer_id
from p2pnode.net.memory_stream import HIGH_WATER_BYTES
from p2pnode.net.memory_transport import MemoryTransport
from p2pnode.net.transport import ByteStream, Transport

pytestmark = pytest.mark.virtual_time

A, B, C = (fake_peer_id(number) for number in range(3))
ECHO = "/test/echo/1"


async def echo(stream: ByteStream) -> None:
    while True:
        stream.write(await stream.read_exactly(4))
        await stream.drain()


@asynccontextmanager
async def peers(
    network: MemoryNetwork, handler: Callable[[ByteStream], Awaitable[None]] = echo
) -> AsyncIterator[tuple[MemoryTransport, MemoryTransport, MemoryTransport]]:
    """Three peers that answer, the first connected to the others."""
    async with AsyncExitStack() as stack:
        a, b, c = [await stack.enter_async_context(network.transport(p)) for p in (A, B, C)]
        for transport in (a, b, c):
            await transport.serve(ECHO, handler)
        await a.connect(B, b.addresses)
        await a.connect(C, c.addresses)
        yield a, b, c


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_bytes_come_back_after_both_latencies() -> None:
    network = MemoryNetwork()
    network.set_one_way(A, B, Line(latency_s=0.02))
    network.set_one_way(B, A, Line(latency_s=0.05))
    async with peers(network) as (a, _, _):
        stream = await a.open_stream(B, ECHO)
        began = now()
        stream.write(b"ping")
        assert await stream.read_exactly(4) == b"ping"
        assert now() - began == pytest.approx(0.07)
        assert stream.peer == B


async def test_a_rate_is_shared_by_the_streams_of_a_pair() -> None:
    network = MemoryNetwork(line=Line(bytes_per_s=1000))
    async with peers(network) as (a, _, _):
        streams = [await a.open_stream(B, ECHO) for _ in range(2)]
        began = now()
        for stream in streams:
            stream.write(b"x" * 500)
        await streams[1].read_exactly(4)
        assert now() - began == pytest.approx(1.004, abs=0.01)


async def test_jitter_and_loss_delay_bytes_but_never_reorder_them() -> None:
    async def arrivals(seed: int) -> list[float]:
        network = MemoryNetwork(seed=seed, line=Line(latency_s=0.01, jitter_s=0.02, loss=0.2))
        async with peers(network) as (a, _, _):
            stream = await a.open_stream(B, ECHO)
            times = []
            for number in range(50):
                stream.write(number.to_bytes(4, "big"))
            for number in range(50):
                assert int.from_bytes(await stream.read_exactly(4), "big") == number
                times.append(now())
            return times

    first = await arrivals(7)
    assert max(first) > min(first) + 0.2


def test_a_seed_decides_every_delay() -> None:
    async def last_arrival(seed: int) -> float:
        network = MemoryNetwork(seed=seed, line=Line(jitter_s=0.02, loss=0.1))
        async with peers(network) as (a, _, _):
            stream = await a.open_stream(B, ECHO)
            for _ in range(30):
                stream.write(b"ping")
                await stream.read_exactly(4)
            return now()

    assert run_virtual(last_arrival(1)) == run_virtual(last_arrival(1))
    assert run_virtual(last_arrival(1)) != run_virtual(last_arrival(2))


async def test_a_killed_peer_reads_as_an_end_after_the_latency() -> None:
    network = MemoryNetwork(line=Line(latency_s=0.03))
    async with peers(network) as (a, b, _):
        stream = await a.open_stream(B, ECHO)
        network.kill(B)
        began = now()
        with pytest.raises(PeerLost):
            await stream.read_exactly(1)
        assert now() - began == pytest.approx(0.03)
        with pytest.raises(PeerLost):
            stream.write(b"ping")
        with pytest.raises(PeerLost):
            await a.open_stream(B, ECHO)
        with pytest.raises(PeerLost):
            await a.connect(B, b.addresses)
        with pytest.raises(DaemonDied):
            await b.wait_closed()
        with pytest.raises(DaemonDied):
            await b.connect(A, a.addresses)


async def test_a_killed_peer_comes_back_at_another_address() -> None:
    network = MemoryNetwork()
    async with peers(network) as (a, b, _):
        network.kill(B)
        async with network.transport(B) as again:
            await again.serve(ECHO, echo)
            await a.connect(B, ())
            with pytest.raises(PeerLost, match="one that has died"):
                await a.open_stream(B, ECHO)
            with pytest.raises(PeerLost, match="refused"):
                await a.connect(B, b.addresses)
            await a.connect(B, (*b.addresses, *again.addresses))
            stream = await a.open_stream(B, ECHO)
            stream.write(b"ping")
            assert await stream.read_exactly(4) == b"ping"


async def test_a_frozen_peer_accepts_everything_and_answers_when_it_is_thawed() -> None:
    network = MemoryNetwork()
    async with peers(network) as (a, _, _):
        old = await a.open_stream(B, ECHO)
        network.freeze(B)
        new = await a.open_stream(B, ECHO)
        for stream in (old, new):
            stream.write(b"ping")
            await stream.drain()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3600):
                    await stream.read_exactly(4)
        network.thaw(B)
        for stream in (old, new):
            assert await stream.read_exactly(4) == b"ping"


async def test_writes_to_a_peer_that_does_not_read_wait_only_when_much_is_unread() -> None:
    network = MemoryNetwork()
    async with peers(network) as (a, _, _):
        stream = await a.open_stream(B, ECHO)
        network.freeze(B)
        stream.write(bytes(HIGH_WATER_BYTES))
        await stream.drain()
        stream.write(b"more")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await stream.drain()
        network.kill(B)
        with pytest.raises(PeerLost):
            await stream.drain()


async def test_what_a_frozen_peer_writes_leaves_when_it_is_thawed() -> None:
    network = MemoryNetwork()
    async with peers(network) as (a, _, _):
        stream = await a.open_stream(B, ECHO)
        network.freeze(A)
        stream.write(b"ping")
        await asyncio.sleep(5)
        assert network.bytes_sent[A, B] == 0
        network.thaw(A)
        assert await stream.read_exactly(4) == b"ping"


async def test_a_partition_delays_bytes_until_it_heals() -> None:
    network = MemoryNetwork(line=Line(latency_s=0.01))
    async with peers(network) as (a, _, c):
        stream = await a.open_stream(B, ECHO)
        network.partition([A], [B, C])
        stream.write(b"ping")
        with pytest.raises(PeerTimeout):
            await a.open_stream(C, ECHO)
        with pytest.raises(PeerTimeout):
            await c.open_stream(A, ECHO)
        network.heal()
        assert await stream.read_exactly(4) == b"ping"


async def test_a_black_hole_ends_the_streams_on_both_sides_at_last() -> None:
    network = MemoryNetwork()
    ended_at: list[float] = []

    async def note_end(stream: ByteStream) -> None:
        try:
            await stream.read_exactly(1)
        finally:
            ended_at.append(now())

    async with peers(network, note_end) as (a, _, _):
        stream = await a.open_stream(B, ECHO)
        began = now()
        network.partition([A], [B])
        with pytest.raises(PeerLost):
            await stream.read_exactly(1)
        await asyncio.sleep(0)
    assert [now() - began, ended_at[0] - began] == pytest.approx([BLACK_HOLE_S] * 2)


async def test_one_way_silence_lets_the_other_way_through() -> None:
    network = MemoryNetwork()
    async with peers(network) as (a, _, _):
        stream = await a.open_stream(B, ECHO)
        stream.write(b"ping")
        network.silence(B, A)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await stream.read_exactly(4)
        assert network.bytes_sent[B, A] == 4
        network.heal()
        assert await stream.read_exactly(4) == b"ping"


@pytest.mark.parametrize("loses", [False, True])
async def test_closing_may_lose_what_is_in_flight(loses: bool) -> None:
    network = MemoryNetwork(line=Line(latency_s=0.01), loses_on_close=loses)
    read: list[bytes] = []

    async def note(stream: ByteStream) -> None:
        read.append(await stream.read_exactly(4))

    async with peers(network, note) as (a, _, _):
        stream = await a.open_stream(B, ECHO)
        stream.write(b"last")
        stream.close()
        await asyncio.sleep(1)
    assert read == ([] if loses else [b"last"])


async def test_an_address_of_another_peer_is_refused() -> None:
    network = MemoryNetwork()
    async with peers(network) as (_, b, c):
        with pytest.raises(PeerLost, match="another peer"):
            await b.connect(C, (f"/memory/3/p2p/{A}",))
        with pytest.raises(PeerLost):
            await b.connect(C, ())
        await b.connect(C, c.addresses)


async def test_streams_need_a_connection_and_a_protocol() -> None:
    network = MemoryNetwork()
    async with peers(network) as (a, b, _):
        with pytest.raises(PeerLost, match="not connected"):
            await b.open_stream(C, ECHO)
        with pytest.raises(PeerLost, match="does not speak"):
            await a.open_stream(B, "/test/unknown/1")


async def test_leaving_cancels_the_handlers_and_ends_the_streams() -> None:
    network = MemoryNetwork()
    cancelled: list[bool] = []

    async def wait(stream: ByteStream) -> None:
        try:
            await asyncio.sleep(1e9)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async with network.transport(A) as a:
        async with network.transport(B) as b:
            await b.serve(ECHO, wait)
            await a.connect(B, b.addresses)
            stream = await a.open_stream(B, ECHO)
            await asyncio.sleep(0)
        assert cancelled == [True]
        with pytest.raises(PeerLost):
            await stream.read_exactly(1)


async def test_the_memory_transport_keeps_the_contract() -> None:
    transport: Transport = MemoryNetwork().transport(A)
    assert transport.peer == A
    assert transport.addresses[0].endswith(f"/p2p/{A}")


async def test_an_error_in_the_block_is_not_wrapped() -> None:
    with pytest.raises(KeyError):
        async with MemoryNetwork().transport(A):
            raise KeyError
