"""Temperatures and GPUs as their libraries tell them; what they do not tell is missing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from p2pnode.model.sensors import Gpu, Temperature, gpus, temperature


class NVMLError(Exception):
    """What the library raises."""


class FakeNvml:
    """One GPU; ``tells`` False: an old one, or a container without rights."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0
    NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 1

    def __init__(self, *, tells: bool = True) -> None:
        self.tells = tells
        self.is_open = False

    def nvmlInit(self) -> None:
        self.is_open = True

    def nvmlShutdown(self) -> None:
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=100, used=95)

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return b"GPU \x1b[31m"

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return SimpleNamespace(gpu=self._told(40))

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return self._told(85)

    def nvmlDeviceGetTemperatureThreshold(self, handle: int, kind: int) -> int:
        return self._told(90)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:
        return self._told(0x20 | 0x1)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        self._told(0)
        return [SimpleNamespace(pid=1, usedGpuMemory=None), SimpleNamespace(pid=2, usedGpuMemory=9)]

    def _told(self, value: int) -> int:
        if not self.tells:
            raise NVMLError("not supported")
        return value


def test_a_gpu_tells_its_load_heat_and_who_holds_its_memory() -> None:
    nvml = FakeNvml()
    (gpu,) = gpus(nvml)
    assert not nvml.is_open
    assert gpu == Gpu(
        name="GPU \\x1b[31m",
        total_bytes=100,
        used_bytes=95,
        load=0.4,
        celsius=85.0,
        limit=90.0,
        slowed_by=("heat",),
        holders=((2, 9), (1, 0)),
    )


def test_what_a_gpu_does_not_tell_is_missing() -> None:
    (gpu,) = gpus(FakeNvml(tells=False))
    assert (gpu.load, gpu.celsius, gpu.limit, gpu.slowed_by, gpu.holders) == (
        0.0,
        None,
        None,
        (),
        (),
    )


def test_the_hottest_sensor_of_the_processor_counts() -> None:
    def sensor(current: float, high: float | None) -> Any:
        return SimpleNamespace(current=current, high=high, critical=None)

    chips = {"nvme": [sensor(99.0, 80.0)], "coretemp": [sensor(50.0, 100.0), sensor(60.0, 100.0)]}
    assert temperature(lambda: chips) == Temperature(60.0, 100.0)
    assert temperature(lambda: {"other": [sensor(40.0, None)]}) == Temperature(40.0, None)
    assert temperature(lambda: {}) is None
