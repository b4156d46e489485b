"""Reading the swarm: once for everybody who asks at the same time."""

from __future__ import annotations

import asyncio

import pytest

from p2pnode.dht.memory import MemoryDht, MemoryDirectory
from p2pnode.errors import JoinFailed
from p2pnode.swarm.view import SwarmReader
from p2pnode.types import Announcement
from tests.support.announcements import NOW, announcement, key_pair

ALICE, BOB = key_pair(1), key_pair(2)


def clock() -> float:
    return NOW + asyncio.get_running_loop().time()


class CountingDirectory(MemoryDirectory):
    """Counts its readings."""

    num_readings = 0

    async def announcements(self) -> tuple[Announcement, ...]:
        self.num_readings += 1
        return await super().announcements()


def reader_of(directory: MemoryDirectory) -> SwarmReader:
    monotonic = asyncio.get_running_loop().time
    return SwarmReader(directory, wall_clock=clock, monotonic=monotonic)


@pytest.mark.virtual_time
async def test_callers_at_the_same_time_share_one_reading() -> None:
    dht = MemoryDht(clock=clock, latency_s=0.2)
    await MemoryDirectory(dht, ALICE).publish(announcement(ALICE))
    directory = CountingDirectory(dht, BOB)
    reader = reader_of(directory)
    async with asyncio.TaskGroup() as group:
        views = [group.create_task(reader.view()) for _ in range(8)]
    assert directory.num_readings == 1
    assert {len(view.result().announcements) for view in views} == {1}


@pytest.mark.virtual_time
async def test_a_view_is_read_again_when_it_is_too_old_for_the_caller() -> None:
    directory = CountingDirectory(MemoryDht(clock=clock), BOB)
    reader = reader_of(directory)
    await reader.view()
    await reader.view()
    assert directory.num_readings == 1
    await reader.view(max_age_s=0)
    assert directory.num_readings == 2
    await asyncio.sleep(1.5)
    await reader.view()
    assert directory.num_readings == 3


@pytest.mark.virtual_time
async def test_a_cancelled_caller_does_not_spoil_the_reading_of_the_others() -> None:
    dht = MemoryDht(clock=clock, latency_s=1.0)
    await MemoryDirectory(dht, ALICE).publish(announcement(ALICE))
    reader = reader_of(CountingDirectory(dht, BOB))
    async with asyncio.TaskGroup() as group:
        first = group.create_task(reader.view())
        second = group.create_task(reader.view())
        await asyncio.sleep(0.5)
        first.cancel()
    assert len(second.result().announcements) == 1


@pytest.mark.virtual_time
async def test_what_expired_since_the_reading_is_not_shown() -> None:
    dht = MemoryDht(clock=clock)
    await MemoryDirectory(dht, ALICE).publish(announcement(ALICE))
    reader = reader_of(MemoryDirectory(dht, BOB))
    assert len((await reader.view()).announcements) == 1
    await asyncio.sleep(60)
    assert reader.known().announcements == ()


@pytest.mark.virtual_time
async def test_a_failed_reading_leaves_the_last_one_until_all_of_it_has_expired() -> None:
    dht = MemoryDht(clock=clock)
    await MemoryDirectory(dht, ALICE).publish(announcement(ALICE))
    directory = MemoryDirectory(dht, BOB)
    reader = reader_of(directory)
    await reader.view()
    dht.cut_off(directory.peer)
    assert len((await reader.view(max_age_s=0)).announcements) == 1
    await asyncio.sleep(60)
    with pytest.raises(JoinFailed):
        await reader.view(max_age_s=0)


@pytest.mark.virtual_time
async def test_a_reading_that_stalls_does_not_keep_a_generation_waiting() -> None:
    dht = MemoryDht(clock=clock)
    await MemoryDirectory(dht, ALICE).publish(announcement(ALICE))
    reader = reader_of(MemoryDirectory(dht, BOB))
    await reader.view()
    dht.latency_s = 30.0
    began = asyncio.get_running_loop().time()
    assert len((await reader.view(max_age_s=0)).announcements) == 1
    assert asyncio.get_running_loop().time() - began < 5.0
