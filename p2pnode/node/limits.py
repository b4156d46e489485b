"""What a volunteer allows: until when, how much memory, and not while they need the machine.

The number of sessions is admission's business; the uplink is only announced, so that routing counts
with it: nothing is paced on the wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from datetime import time as ClockTime
from importlib import import_module
from typing import Any, Self

import psutil

from p2pnode.model.device import Device

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 60.0
"""The wall clock may be set meanwhile."""
SAMPLE_INTERVAL_S = 2.0
BUSY_SHARE = 0.5
"""Of the processor's cores (or of the GPU), used by others."""
FREE_SHARE = 0.2
BUSY_AFTER_S = 4.0
FREE_AFTER_S = 30.0


# --- until when


def seconds_until(at: ClockTime, now: float, zone: tzinfo | None = None) -> float:
    """From ``now`` (seconds since the epoch) to the next time that clocks here show ``at``.

    zone: where "here" is; None: as this machine is set. At most a day, and an hour more where
    clocks are put back meanwhile.
    """
    here = datetime.fromtimestamp(now, zone)
    due = datetime.combine(here.date(), at, here.tzinfo)
    if due.timestamp() <= now:
        due = datetime.combine(here.date() + timedelta(days=1), at, here.tzinfo)
    return due.timestamp() - now


async def leave_at(
    at: ClockTime,
    on_due: Callable[[], object],
    *,
    wall_clock: Callable[[], float],
    zone: tzinfo | None = None,
) -> None:
    """Call ``on_due`` once, when clocks show ``at`` for the next time."""
    now = wall_clock()
    due = now + seconds_until(at, now, zone)
    log.info("serving until: time=%s in_s=%.0f", at.strftime("%H:%M"), due - now)
    left_s = due - now
    while left_s > 0:
        await asyncio.sleep(min(left_s, LOOK_AGAIN_S))
        left_s = due - wall_clock()
    on_due()


# --- how much memory


def within(device: Device, vram_bytes: int | None, *, used_bytes: int = 0) -> Device:
    """The device as if it had ``vram_bytes``, of which we use so many already; None: as it is."""
    if vram_bytes is None:
        return device
    left = max(0, vram_bytes - used_bytes)
    return replace(
        device,
        total_bytes=min(device.total_bytes, vram_bytes),
        free_bytes=min(device.free_bytes, left),
    )


# --- not while they need the machine


class Hysteresis:
    """Whether something is busy, from a load that goes up and down; pure, takes ``now``.

    Busy from `BUSY_SHARE` on when that lasts for `BUSY_AFTER_S`, free again below `FREE_SHARE` for
    `FREE_AFTER_S`: a volunteer who pauses to think is not done.
    """

    def __init__(self) -> None:
        self.is_busy = False
        self._turned_at: float | None = None

    def note(self, share: float, now: float) -> None:
        """The load is such a share now."""
        is_turning = share < FREE_SHARE if self.is_busy else share >= BUSY_SHARE
        if not is_turning:
            self._turned_at = None
            return
        if self._turned_at is None:
            self._turned_at = now
        if now - self._turned_at >= (FREE_AFTER_S if self.is_busy else BUSY_AFTER_S):
            self.is_busy = not self.is_busy
            self._turned_at = None


class Busy:
    """Whether the owner uses this machine; `run` keeps `is_busy` up to date."""

    def __init__(
        self,
        load_of_others: Callable[[], float],
        on_change: Callable[[bool], object] = lambda is_busy: None,
    ) -> None:
        """load_of_others: the share that others use now, 0 to 1; may take a while."""
        self._load_of_others = load_of_others
        self._on_change = on_change
        self._hysteresis = Hysteresis()

    @property
    def is_busy(self) -> bool:
        """Whether new sessions should be refused."""
        return self._hysteresis.is_busy

    async def run(self) -> None:
        """Look every 2 s until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            share = await loop.run_in_executor(None, self._load_of_others)
            was_busy = self.is_busy
            self._hysteresis.note(share, loop.time())
            if self.is_busy != was_busy:
                log.info("owner %s: load=%.2f", "is busy" if self.is_busy else "is away", share)
                self._on_change(self.is_busy)
            await asyncio.sleep(SAMPLE_INTERVAL_S)


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds on all cores together, at some moment."""

    at: float
    idle_s: float
    own_s: float
    """Used by us and our children."""

    @classmethod
    def now(cls, at: float, ours: Iterable[psutil.Process]) -> Self:
        """Ask the system."""
        times = psutil.cpu_times()
        idle_s = times.idle + getattr(times, "iowait", 0.0)
        return cls(at, idle_s, cpu_s(ours))

    def share_of_others(self, before: CpuTimes, num_cores: int) -> float:
        """What others have used since then, 0 to 1."""
        cores_s = num_cores * (self.at - before.at)
        if cores_s <= 0:
            return 0.0
        # A child that has ended takes its seconds along: others have not worked less for it.
        own_s = max(0.0, self.own_s - before.own_s)
        return min(max((cores_s - (self.idle_s - before.idle_s) - own_s) / cores_s, 0.0), 1.0)


@dataclass(slots=True)
class LoadOfOthers:
    """The share of processor or GPU, whichever is more, that is not used by us or our children.

    Calling it measures since the last call; the first one gives the GPU alone, which is asked where
    nvidia-ml-py is installed.
    """

    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    _last: CpuTimes | None = None

    def __call__(self) -> float:
        ours = our_processes()
        last, self._last = self._last, CpuTimes.now(self.clock(), ours)
        cores = psutil.cpu_count() or 1
        processor = self._last.share_of_others(last, cores) if last else 0.0
        since = self.wall_clock() - 2.0 * SAMPLE_INTERVAL_S
        return max(processor, gpu_share_of_others(_nvml(), {each.pid for each in ours}, since))


def our_processes() -> list[psutil.Process]:
    """This one and all that it has started, and they."""
    this = psutil.Process(os.getpid())
    try:
        return [this, *this.children(recursive=True)]
    except psutil.Error:
        return [this]


def cpu_s(processes: Iterable[psutil.Process]) -> float:
    """Seconds of processor that they have used so far."""
    used_s = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):  # it has just ended
            times = process.cpu_times()
            used_s += times.user + times.system
    return used_s


def _nvml() -> Any:
    """The module of nvidia-ml-py; None where that is not installed."""
    try:
        return import_module("pynvml")
    except ImportError:
        return None


def gpu_share_of_others(nvml: Any, ours: set[int], since: float) -> float:
    """The most that processes other than these use of any NVIDIA GPU; 0 where nobody can tell.

    nvml: the module of nvidia-ml-py, or None; since: seconds since the epoch
    """
    if nvml is None:
        return 0.0
    try:
        nvml.nvmlInit()
        try:
            gpus = range(nvml.nvmlDeviceGetCount())
            return max(
                (_used_by_others(nvml, i, ours, int(since * 1e6)) for i in gpus), default=0.0
            )
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        log.debug("GPU load unknown: error=%s", error)
        return 0.0


def _used_by_others(nvml: Any, index: int, ours: set[int], since_us: int) -> float:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    try:
        samples = nvml.nvmlDeviceGetProcessUtilization(handle, since_us)
    except nvml.NVMLError_NotFound:  # nobody has used it
        return 0.0
    latest = {int(sample.pid): int(sample.smUtil) for sample in samples}
    return min(1.0, sum(used for pid, used in latest.items() if pid not in ours) / 100.0)
