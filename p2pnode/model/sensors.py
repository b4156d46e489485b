"""How hot and how full this machine's devices are: psutil, and nvidia-ml-py where it is there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import psutil

from p2pnode.log import escape

log = logging.getLogger(__name__)

MAX_GPUS = 16
SLOWED_BY = {
    0x0000000000000004: "its power limit",
    0x0000000000000008: "the hardware (heat or power)",
    0x0000000000000020: "heat",
    0x0000000000000040: "heat (hardware)",
    0x0000000000000080: "its power supply",
}
"""NVML's clock event reasons that mean less speed than there could be."""


@dataclass(frozen=True, slots=True)
class Temperature:
    """The hottest sensor of the processor."""

    celsius: float
    limit: float | None
    """From where on it is slowed down, as far as the sensor tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """An NVIDIA GPU at one moment."""

    name: str
    total_bytes: int
    used_bytes: int
    load: float
    """The share of the last moments in which it computed, 0 to 1."""
    celsius: float | None = None
    limit: float | None = None
    """From where on it is slowed down."""
    slowed_by: tuple[str, ...] = ()
    holders: tuple[tuple[int, int], ...] = ()
    """(process id, bytes), those with the most first."""


def temperature(read: Callable[[], dict[str, list[Any]]] | None = None) -> Temperature | None:
    """Of the processor; None where no sensor tells (virtual machines, macOS).

    read: what psutil has for it, where it has
    """
    read = read or getattr(psutil, "sensors_temperatures", None)
    if read is None:
        return None
    try:
        chips = read()
    except (OSError, RuntimeError, ValueError) as error:
        log.debug("no temperature: error=%s", error)
        return None
    known = [
        chips[name] for name in ("coretemp", "k10temp", "zenpower", "cpu_thermal") if name in chips
    ]
    found = [each for sensors in known or chips.values() for each in sensors if each.current > 0]
    if not found:
        return None
    hottest = max(found, key=lambda each: each.current)
    limit = hottest.high or hottest.critical
    return Temperature(float(hottest.current), float(limit) if limit else None)


def gpus(nvml: Any = None) -> tuple[Gpu, ...]:
    """All NVIDIA GPUs; none where there are none, or nvidia-ml-py is not installed.

    nvml: its module, else the one that is installed
    """
    nvml = nvml or _installed()
    if nvml is None:
        return ()
    try:
        nvml.nvmlInit()
        try:
            count = min(nvml.nvmlDeviceGetCount(), MAX_GPUS)
            return tuple(_gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(i)) for i in range(count))
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        log.debug("GPUs not read: error=%s", error)
        return ()


def _gpu(nvml: Any, handle: Any) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    name = nvml.nvmlDeviceGetName(handle)
    name = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    load = _told(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    celsius = _told(nvml, lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
    slowdown = nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
    limit = _told(nvml, lambda: nvml.nvmlDeviceGetTemperatureThreshold(handle, slowdown))
    reasons = _told(nvml, lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
    processes = _told(nvml, lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle)) or []
    held = [(int(each.pid), int(each.usedGpuMemory or 0)) for each in processes]
    return Gpu(
        name=escape(name, 64),
        total_bytes=int(memory.total),
        used_bytes=int(memory.used),
        load=float(load or 0) / 100.0,
        celsius=None if celsius is None else float(celsius),
        limit=None if limit is None else float(limit),
        slowed_by=tuple(why for bit, why in SLOWED_BY.items() if int(reasons or 0) & bit),
        holders=tuple(sorted(held, key=lambda each: -each[1])),
    )


def _told(nvml: Any, ask: Callable[[], Any]) -> Any:
    """One figure; None where this GPU or driver does not tell it."""
    try:
        return ask()
    except nvml.NVMLError:
        return None


def _installed() -> Any:
    try:
        return import_module("pynvml")
    except ImportError:
        return None
