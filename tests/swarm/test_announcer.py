"""Announcing: fresh while we live, gone when we leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from p2pnode.dht.memory import MemoryDht, MemoryDirectory
from p2pnode.swarm.announcer import Announcer
from p2pnode.types import Announcement
from tests.support.announcements import NOW, announcement, key_pair

ALICE, BOB = key_pair(1), key_pair(2)


def clock() -> float:
    """Wall time that follows the loop's virtual time."""
    return NOW + asyncio.get_running_loop().time()


class CountingDirectory(MemoryDirectory):
    """Also keeps what was published, in order."""

    def __init__(self, dht: MemoryDht) -> None:
        super().__init__(dht, ALICE)
        self.published: list[Announcement] = []

    async def publish(self, announcement: Announcement) -> None:
        await super().publish(announcement)
        self.published.append(announcement)


@asynccontextmanager
async def running(announcer: Announcer) -> AsyncIterator[Callable[[], object]]:
    """Run it; the callable stops it, leaving the block waits for its end."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(announcer.run(), name="announcer")
        try:
            yield task.cancel
        finally:
            task.cancel()


def announcer_of(directory: MemoryDirectory) -> Announcer:
    return Announcer(directory, lambda: announcement(ALICE), wall_clock=clock)


@pytest.mark.virtual_time
async def test_an_announcement_is_renewed_every_twenty_seconds_with_rising_numbers() -> None:
    directory = CountingDirectory(MemoryDht(clock=clock))
    async with running(announcer_of(directory)):
        await asyncio.sleep(61)
    *live, tombstone = directory.published
    assert [round(each.issued_at - NOW) for each in live] == [0, 20, 40, 60]
    assert all(each.expires_at == each.issued_at + 60 for each in live)
    sequences = [each.sequence for each in directory.published]
    assert sequences == sorted(set(sequences))
    assert tombstone.is_withdrawn


@pytest.mark.virtual_time
async def test_leaving_takes_the_announcement_down_at_once() -> None:
    dht = MemoryDht(clock=clock)
    alice, bob = MemoryDirectory(dht, ALICE), MemoryDirectory(dht, BOB)
    announcer = announcer_of(alice)
    async with running(announcer):
        await announcer.wait_published()
        assert len(await bob.announcements()) == 1
    assert await bob.announcements() == ()


@pytest.mark.virtual_time
async def test_a_tombstone_outlives_the_announcement_that_it_replaces() -> None:
    directory = CountingDirectory(MemoryDht(clock=clock))
    announcer = announcer_of(directory)
    async with running(announcer) as stop:
        await announcer.wait_published()
        stop()
    announced, tombstone = directory.published
    assert tombstone.sequence > announced.sequence
    assert tombstone.expires_at > announced.expires_at


@pytest.mark.virtual_time
async def test_leaving_a_swarm_that_does_not_answer_takes_two_seconds_at_most() -> None:
    dht = MemoryDht(clock=clock)
    alice = MemoryDirectory(dht, ALICE)
    announcer = announcer_of(alice)
    async with running(announcer) as stop:
        await announcer.wait_published()
        dht.cut_off(alice.peer)
        stop()
        left_at = clock()
    assert clock() - left_at <= 2.0


@pytest.mark.virtual_time
async def test_a_swarm_that_does_not_answer_is_tried_again_soon() -> None:
    dht = MemoryDht(clock=clock)
    alice, bob = MemoryDirectory(dht, ALICE), MemoryDirectory(dht, BOB)
    dht.cut_off(alice.peer)
    async with running(announcer_of(alice)):
        await asyncio.sleep(30)
        dht.reconnect(alice.peer)
        await asyncio.sleep(6)
        assert len(await bob.announcements()) == 1


@pytest.mark.virtual_time
async def test_news_is_announced_without_waiting() -> None:
    directory = CountingDirectory(MemoryDht(clock=clock))
    announcer = announcer_of(directory)
    async with running(announcer):
        await announcer.wait_published()
        await asyncio.sleep(3)
        announcer.announce_now()
        await asyncio.sleep(1)
        assert [round(each.issued_at - NOW) for each in directory.published] == [0, 3]


@pytest.mark.virtual_time
async def test_a_restarted_peer_is_believed_at_once() -> None:
    dht = MemoryDht(clock=clock)
    alice, bob = MemoryDirectory(dht, ALICE), MemoryDirectory(dht, BOB)
    for _ in range(3):
        announcer = announcer_of(alice)
        async with running(announcer):
            started_at = clock()
            await announcer.wait_published()
            assert clock() == started_at
            assert len(await bob.announcements()) == 1
            await asyncio.sleep(0.5)
        await asyncio.sleep(0.01)
        assert await bob.announcements() == ()


@pytest.mark.virtual_time
async def test_a_clock_set_back_does_not_silence_a_running_peer() -> None:
    back_s = 0.0
    dht = MemoryDht(clock=lambda: clock() - back_s)
    alice, bob = MemoryDirectory(dht, ALICE), MemoryDirectory(dht, BOB)
    announcer = Announcer(alice, lambda: announcement(ALICE), wall_clock=lambda: clock() - back_s)
    async with running(announcer):
        await announcer.wait_published()
        back_s = 25.0
        await asyncio.sleep(41)
        assert len(await bob.announcements()) == 1


@pytest.mark.virtual_time
async def test_leaving_before_the_first_announcement_ends_well() -> None:
    dht = MemoryDht(clock=clock)
    dht.cut_off(MemoryDirectory(dht, ALICE).peer)
    directory = CountingDirectory(dht)
    async with running(announcer_of(directory)) as stop:
        await asyncio.sleep(1)
        stop()
    assert directory.published == []
