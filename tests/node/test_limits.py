"""What a volunteer allows."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from datetime import time as ClockTime
from zoneinfo import ZoneInfo

import pytest

from p2pnode.model.device import Device
from p2pnode.node.limits import (
    BUSY_AFTER_S,
    FREE_AFTER_S,
    SAMPLE_INTERVAL_S,
    Busy,
    CpuTimes,
    Hysteresis,
    LoadOfOthers,
    gpu_share_of_others,
    leave_at,
    our_processes,
    seconds_until,
    within,
)
from p2pnode.tasks import Tasks

EAST = timezone(timedelta(hours=2))
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=EAST).timestamp()
HOUR_S = 3600.0


@pytest.mark.parametrize(
    ("at", "hours"),
    [
        (ClockTime(12, 30), 0.5),
        (ClockTime(23, 59), 11 + 59 / 60),
        (ClockTime(11, 59), 24 - 1 / 60),
        (ClockTime(12, 0), 24.0),
        (ClockTime(0, 0), 12.0),
    ],
)
def test_until_is_the_next_time_that_clocks_here_show_it(at: ClockTime, hours: float) -> None:
    assert seconds_until(at, NOON, EAST) == pytest.approx(hours * HOUR_S)


def test_clocks_that_are_put_back_make_the_night_longer() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    evening = datetime(2026, 10, 24, 22, 0, tzinfo=berlin).timestamp()
    assert seconds_until(ClockTime(6, 0), evening, berlin) == 9 * HOUR_S


@pytest.mark.virtual_time
async def test_leaving_is_due_once_and_in_time() -> None:
    loop = asyncio.get_running_loop()
    began, due = loop.time(), []

    def wall_clock() -> float:
        return NOON + loop.time() - began

    at = ClockTime(12, 30)
    await leave_at(at, lambda: due.append(loop.time()), wall_clock=wall_clock, zone=EAST)
    assert due == [pytest.approx(began + HOUR_S / 2)]


@pytest.mark.virtual_time
async def test_a_clock_that_is_set_meanwhile_is_noticed_within_a_minute() -> None:
    loop = asyncio.get_running_loop()
    began, due = loop.time(), []

    def wall_clock() -> float:
        gone = loop.time() - began
        return NOON + gone + (HOUR_S if gone > 600.0 else 0.0)

    at = ClockTime(13, 0)
    await leave_at(at, lambda: due.append(loop.time()), wall_clock=wall_clock, zone=EAST)
    assert due[0] - began < 700.0


def test_memory_is_what_was_allowed_and_not_more_than_there_is() -> None:
    device = Device("cuda", "lab", total_bytes=8_000, free_bytes=6_000)
    assert within(device, None) is device
    allowed = within(device, 4_000)
    assert (allowed.total_bytes, allowed.free_bytes) == (4_000, 4_000)
    assert within(device, 4_000, used_bytes=3_000).free_bytes == 1_000
    assert within(device, 4_000, used_bytes=5_000).free_bytes == 0
    assert within(device, 9_000).free_bytes == 6_000


def busy_after(*loads: tuple[float, float]) -> bool:
    """Whether it is busy after such loads, each for so many seconds."""
    hysteresis, now = Hysteresis(), 0.0
    for share, for_s in loads:
        until = now + for_s
        while now <= until:
            hysteresis.note(share, now)
            now += 1.0
    return hysteresis.is_busy


@pytest.mark.parametrize(
    ("loads", "is_busy"),
    [
        ([(0.9, BUSY_AFTER_S)], True),
        ([(0.9, BUSY_AFTER_S - 2.0), (0.1, 1.0), (0.9, BUSY_AFTER_S - 2.0)], False),
        ([(0.4, 600.0)], False),
        ([(0.9, 10.0), (0.4, 600.0)], True),
        ([(0.9, 10.0), (0.1, FREE_AFTER_S - 5.0)], True),
        ([(0.9, 10.0), (0.1, FREE_AFTER_S)], False),
        ([(0.9, 10.0), (0.1, FREE_AFTER_S - 5.0), (0.4, 1.0), (0.1, 10.0)], True),
    ],
)
def test_busy_begins_and_ends_when_it_lasts(
    loads: list[tuple[float, float]], is_busy: bool
) -> None:
    assert busy_after(*loads) is is_busy


@pytest.mark.virtual_time
async def test_changes_are_told_once() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    changes: list[bool] = []

    def load() -> float:
        return 0.9 if loop.time() - began < 60.0 else 0.0

    busy = Busy(load, changes.append)
    assert not busy.is_busy
    async with Tasks() as tasks:
        tasks.start(busy.run(), name="busy")
        await asyncio.sleep(BUSY_AFTER_S + 2 * SAMPLE_INTERVAL_S)
        assert busy.is_busy
        await asyncio.sleep(120.0)
    assert changes == [True, False]


@pytest.mark.parametrize(
    ("idle_s", "own_s", "share"),
    [(8.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 8.0, 0.0), (4.0, 2.0, 0.25), (4.0, -50.0, 0.5)],
)
def test_the_load_of_others_is_neither_idle_nor_ours(
    idle_s: float, own_s: float, share: float
) -> None:
    """Two seconds of four cores; a child that has ended takes its seconds along."""
    before = CpuTimes(10.0, 100.0, 60.0)
    after = CpuTimes(12.0, 100.0 + idle_s, 60.0 + own_s)
    assert after.share_of_others(before, 4) == pytest.approx(share)
    assert before.share_of_others(before, 4) == 0.0


def test_the_work_of_our_children_is_ours() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        pids = {process.pid for process in our_processes()}
        child.communicate(b"\n")
    assert child.pid in pids


def test_the_load_of_others_is_a_share() -> None:
    load = LoadOfOthers()
    load()
    assert 0.0 <= load() <= 1.0


@dataclass
class Sample:
    pid: int
    smUtil: int


class FakeNvml:
    """Two GPUs as NVML shows them; where nobody works it says "not found"."""

    class NVMLError(Exception):
        pass

    class NVMLError_NotFound(NVMLError):
        pass

    def __init__(self, *gpus: list[Sample]) -> None:
        self.gpus = gpus
        self.num_open = 0

    def nvmlInit(self) -> None:
        self.num_open += 1

    def nvmlShutdown(self) -> None:
        self.num_open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetProcessUtilization(self, handle: int, since_us: int) -> list[Sample]:
        if not self.gpus[handle]:
            raise self.NVMLError_NotFound
        return self.gpus[handle]


class BrokenNvml(FakeNvml):
    """The driver does not answer."""

    def nvmlDeviceGetCount(self) -> int:
        raise self.NVMLError("driver not loaded")


def test_the_gpu_is_the_owners_when_others_use_it() -> None:
    ours, game = Sample(1, 90), Sample(2, 70)
    nvml = FakeNvml([ours], [], [ours, game])
    assert gpu_share_of_others(nvml, {1}, 0.0) == 0.7
    assert gpu_share_of_others(FakeNvml([ours], []), {1}, 0.0) == 0.0
    assert nvml.num_open == 0


def test_a_gpu_that_cannot_be_asked_is_not_in_use() -> None:
    broken = BrokenNvml()
    assert gpu_share_of_others(broken, set(), 0.0) == 0.0
    assert broken.num_open == 0
    assert gpu_share_of_others(None, set(), 0.0) == 0.0
