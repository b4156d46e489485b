"""Links over the in-memory transport: greeting, fairness, heartbeat, good ends, sharing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from p2pnode.errors import PeerLost, PeerMisbehaved, PeerTimeout
from p2pnode.net.memory_transport import MemoryTransport
from p2pnode.net.patience import MAX_MESSAGES
from p2pnode.net.transport import ByteStream, StreamHandler
from p2pnode.wire.frames import frames
from p2pnode.wire.messages import CHAIN, CONTROL, Close, Hello, Ping, Pong, Step
from tests.net.ends import FAR, NEAR, THIRD, End, ends, large, network, small

pytestmark = pytest.mark.virtual_time


async def test_messages_arrive_whole_and_in_order_both_ways() -> None:
    async with ends(network()) as (near, far):
        link = await near.connect(far)
        sent = [small(1), large(200_000), small(2), large(64 * 1024), large(16)]
        for message in sent:
            link.send(message)
        await far.seen.until(len(sent))
        received = [message for _, message in far.seen.messages]
        assert [m for m in received if isinstance(m, Close)] == [small(1), small(2)]
        steps = [bytes(m.entry.data) for m in received if isinstance(m, Step)]
        assert sorted(steps) == sorted(bytes(m.entry.data) for m in sent if isinstance(m, Step))
        back = far.links.get(NEAR)
        assert back is not None
        back.send(small(3))
        await near.seen.until(1)
        assert near.seen.messages[0][1] == small(3)


async def test_a_small_message_does_not_wait_behind_a_large_one() -> None:
    async with ends(network(bytes_per_s=10_000_000)) as (near, far):
        link = await near.connect(far)
        link.send(large(16 * 1024 * 1024))
        await asyncio.sleep(0.05)
        began = asyncio.get_running_loop().time()
        link.send(small())
        await far.seen.until(2)
        (small_at, first), (large_at, second) = far.seen.messages
        assert isinstance(first, Close)
        assert isinstance(second, Step)
        assert large_at - began > 1.4, "the line takes so long"
        assert small_at - began < 0.35, "what the stream has buffered is before it, no more"


async def test_two_large_messages_take_turns() -> None:
    async with ends(network(bytes_per_s=10_000_000)) as (near, far):
        link = await near.connect(far)
        link.send(large(8 * 1024 * 1024))
        link.send(large(1024 * 1024))
        await far.seen.until(2)
        sizes = [message.entry.num_bytes for _, message in far.seen.messages]
        assert sizes == [1024 * 1024, 8 * 1024 * 1024]


async def test_a_peer_that_does_not_read_holds_back_what_is_sent_to_it() -> None:
    ether = network()
    async with ends(ether) as (near, far):
        link = await near.connect(far)
        ether.freeze(FAR)
        before = ether.bytes_sent[NEAR, FAR]
        for _ in range(4):
            link.send(large(8 * 1024 * 1024))
        await asyncio.sleep(1.0)
        assert ether.bytes_sent[NEAR, FAR] - before < 2_000_000
        ether.thaw(FAR)
        await far.seen.until(4)


async def test_a_peer_that_never_reads_loses_the_link() -> None:
    ether = network()
    async with ends(ether) as (near, far):
        link = await near.connect(far)
        ether.freeze(FAR)
        link.send(large(4 * 1024 * 1024))
        with pytest.raises(PeerLost):
            for _ in range(MAX_MESSAGES + 1):
                link.send(small())
        await near.seen.until(num_lost=1)
        assert isinstance(link.error, PeerTimeout)
        ether.thaw(FAR)


async def test_a_frozen_peer_ends_all_links_to_it_with_a_timeout() -> None:
    ether = network()
    async with ends(ether) as (near, far):
        await near.connect(far)
        await asyncio.sleep(3.0)
        assert near.seen.lost == []
        frozen_at = asyncio.get_running_loop().time()
        ether.freeze(FAR)
        await near.seen.until(num_lost=2)
        assert 1.5 < asyncio.get_running_loop().time() - frozen_at < 3.5
        assert {link.traffic for link, _ in near.seen.lost} == {CHAIN, CONTROL}
        assert all(isinstance(error, PeerTimeout) for _, error in near.seen.lost)
        ether.thaw(FAR)
        again = await near.connect(far)
        again.send(small())
        await far.seen.until(1)


async def test_a_heartbeat_measures_the_round_trip() -> None:
    async with ends(network(latency_s=0.04)) as (near, far):
        await near.connect(far)
        await asyncio.sleep(1.0)
        control = near.links.get(FAR, CONTROL)
        assert control is not None
        assert control.rtt_s == pytest.approx(0.08, abs=0.01)


async def test_an_answer_to_no_ping_is_misbehaviour() -> None:
    async with ends(network()) as (near, far):
        link = await near.connect(far)
        link.send(Pong(number=77))
        await far.seen.until(num_lost=1)
        assert isinstance(far.seen.lost[0][1], PeerMisbehaved)


async def test_leaving_says_end_and_that_is_no_misbehaviour() -> None:
    ether = network()
    async with ether.transport(NEAR) as one, ether.transport(FAR) as two:
        near, far = End(one), End(two)
        async with far.links:
            await far.links.serve()
            async with near.links:
                link = await near.connect(far)
                link.send(large(1_000_000))
            await far.seen.until(1, num_lost=2)
            assert len(far.seen.messages) == 1, "what was sent before END came"
            assert {str(error) for _, error in far.seen.lost} == {
                f"peer {NEAR.short}: it closed the link"
            }
            assert far.links.get(NEAR) is None
            with pytest.raises(PeerLost, match="the link is gone"):
                link.send(small())


async def test_a_dead_peer_ends_the_links_at_once() -> None:
    ether = network()
    async with ends(ether) as (near, far):
        link = await near.connect(far)
        ether.kill(FAR)
        await near.seen.until(num_lost=2)
        assert asyncio.get_running_loop().time() < 1.0
        assert isinstance(link.error, PeerLost)
        with pytest.raises(PeerLost):
            await near.connect(far)


async def test_misbehaviour_ends_the_link_and_no_other() -> None:
    ether = network()
    async with ends(ether) as (near, far), ether.transport(THIRD) as transport:
        third = End(transport)
        async with third.links:
            bad, good = await near.connect(far), await third.connect(far)
            bad.send(small(666))
            await far.seen.until(num_lost=1)
            assert isinstance(far.seen.lost[0][1], PeerMisbehaved)
            good.send(small(1))
            await far.seen.until(2)
            assert good.is_open


async def test_many_connects_at_once_open_one_link_of_each_class() -> None:
    ether = network()
    async with ends(ether) as (near, far):
        async with asyncio.TaskGroup() as tasks:
            opened = [tasks.create_task(near.connect(far)) for _ in range(20)]
        assert len({id(task.result()) for task in opened}) == 1
        assert ether.streams_opened[NEAR, FAR, CHAIN] == 1
        assert ether.streams_opened[NEAR, FAR, CONTROL] == 1


async def test_a_link_that_the_other_side_has_opened_is_used() -> None:
    ether = network()
    async with ends(ether) as (near, far):
        await near.connect(far)
        await asyncio.sleep(0.1)
        await far.connect(near)
        assert ether.streams_opened[FAR, NEAR, CHAIN] == 0


async def test_one_who_gives_up_waiting_does_not_harm_the_others() -> None:
    async with ends(network(latency_s=0.2)) as (near, far):
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(near.connect(far))
            second = tasks.create_task(near.connect(far))
            await asyncio.sleep(0.5)
            first.cancel()
        assert second.result().is_open


@asynccontextmanager
async def odd_server(handle: StreamHandler) -> AsyncIterator[tuple[End, MemoryTransport]]:
    """A peer that serves both classes with ``handle``."""
    ether = network()
    async with ether.transport(NEAR) as one, ether.transport(FAR) as two:
        near = End(one)
        async with near.links:
            for traffic in (CHAIN, CONTROL):
                await two.serve(traffic, handle)
            yield near, two


def _greeting(version: int) -> bytes:
    greeting = Hello(version=version, software="odd/1", nonce=b"n" * 16, credentials=b"")
    return b"".join(frames(greeting, 1))


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (_greeting(2), "speaks version 2 of the protocol, we speak 1"),
        (b"".join(frames(Ping(number=1), 1)), "did not greet first"),
        (b"\xff" * 64, "frame of"),
    ],
)
async def test_a_server_that_greets_badly_misbehaves(told: bytes, reason: str) -> None:
    async def handle(stream: ByteStream) -> None:
        stream.write(told)
        await stream.read_exactly(10_000)

    async with odd_server(handle) as (near, far):
        with pytest.raises(PeerMisbehaved, match=reason):
            await near.links.connect(FAR, far.addresses)
        assert near.links.get(FAR, CONTROL) is None


async def test_a_server_that_never_greets_is_a_timeout() -> None:
    async def handle(stream: ByteStream) -> None:
        await stream.read_exactly(10_000)

    async with odd_server(handle) as (near, far):
        with pytest.raises(PeerTimeout, match="within 3 s"):
            await near.links.connect(FAR, far.addresses)


async def test_a_server_that_hangs_up_is_lost() -> None:
    async def handle(stream: ByteStream) -> None:
        stream.close()

    async with odd_server(handle) as (near, far):
        with pytest.raises(PeerLost):
            await near.links.connect(FAR, far.addresses)
