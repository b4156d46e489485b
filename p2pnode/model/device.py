"""What this machine computes on: which device, how much memory, how fast; and in which dtype."""

from __future__ import annotations

import ctypes
import gc
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch

from p2pnode.errors import BadRequest, ComputeFailed
from p2pnode.log import escape

Kind = Literal["cuda", "xpu", "mps", "cpu"]
KINDS: tuple[Kind, ...] = ("cuda", "xpu", "mps", "cpu")
"""In the order in which ``auto`` takes them."""

SMALL_MODEL_BYTES = 256 << 20
"""Models up to this size, in float32, are computed in float32: exact, and fast enough."""

THREADS_GAIN = 1.25
"""All threads are taken when they make a step faster by this much."""

MEASURE_S = 0.1
"""How long one measurement goes on after its warm-up."""


@dataclass(frozen=True, slots=True)
class Device:
    """One device, as it was when it was asked."""

    kind: Kind
    name: str
    total_bytes: int
    """VRAM as the driver says; of a CPU, RAM."""
    free_bytes: int
    index: int = 0

    @property
    def torch_name(self) -> str:
        """``cuda:0``, ``cpu``: what torch calls it."""
        return f"{self.kind}:{self.index}" if self.kind in ("cuda", "xpu") else self.kind

    def __str__(self) -> str:
        memory = "RAM" if self.kind == "cpu" else "VRAM"
        free, total = (f"{size / 1e9:.1f}" for size in (self.free_bytes, self.total_bytes))
        return f"{self.torch_name} ({self.name}), {free} of {total} GB {memory} free"


def choose_device(text: str = "auto") -> Device:
    """The device asked for: ``auto``, ``cuda``, ``cuda:1``, ``xpu``, ``mps``, ``cpu``.

    Raises BadRequest for one that is not here or not known.
    """
    if text == "auto":
        return _inspect(next(kind for kind in KINDS if _count(kind)), 0)
    kind, colon, number = text.partition(":")
    known = next((k for k in KINDS if k == kind), None)
    is_index = number.isascii() and number.isdecimal() and len(number) < 4
    if known is None or (colon and not is_index):
        shapes = "auto, cuda, cuda:1, xpu, mps, cpu"
        raise BadRequest(f"device {escape(text, 40)!r} is not one of {shapes}")
    count, index = _count(known), int(number or 0)
    if index >= count:
        there = ", ".join(f"{k} ({_count(k)})" for k in KINDS if _count(k))
        raise BadRequest(f"device {text} is not here; this machine has: {there}")
    return _inspect(known, index)


def return_freed_memory() -> None:
    """Give the system what the allocator keeps of freed tensors; only glibc's has a call for it.

    Tensors that are read to be joined to others (experts) leave gaps between those that stay.
    """
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def default_dtype(device: Device, float32_bytes: int) -> tuple[str, str]:
    """The dtype to compute in, and the reason, for people.

    float32_bytes: the size of the whole model in float32, not of our part: all peers of a model
        must come to the same result where their devices allow it
    """
    if float32_bytes <= SMALL_MODEL_BYTES:
        return "float32", "a small model: exact on any split"
    if device.kind in ("cuda", "xpu"):
        return "bfloat16", f"half the memory on {device.kind}"
    if device.kind == "cpu" and cpu_has_bfloat16():
        return "bfloat16", "half the memory; this CPU has bfloat16 instructions"
    return "float32", f"bfloat16 would be slow on this {device.kind}"


def cpu_has_bfloat16(cpu_info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies bfloat16 itself; False where it does not say (macOS)."""
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = (line for line in lines if line.lower().startswith(("flags", "features")))
    words = set(next(flags, "").split())
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def choose_threads(device: Device, measure_s: Callable[[], float]) -> float:
    """Set torch's number of threads to one, or to all where that pays; returns its seconds.

    measure_s: runs the work and returns its seconds. A small block is slowed down by threads that
    wait for each other. Beside others on the same cores so is a large one, by far more than all
    threads gain, so a small gain is not taken.
    """
    all_threads = torch.get_num_threads()
    with_all_s = measure_s()
    if device.kind != "cpu" or all_threads == 1:
        return with_all_s
    torch.set_num_threads(1)
    alone_s = measure_s()
    if alone_s <= THREADS_GAIN * with_all_s:
        return alone_s
    torch.set_num_threads(all_threads)
    return with_all_s


def measure_flops(device: Device, dtype: str) -> float:
    """Floating-point operations per second of a large matrix product; takes some 0.1 s.

    Raises ComputeFailed when the device fails.
    """
    size = 512 if device.kind == "cpu" else 4096

    def prepare() -> Callable[[], object]:
        kind = getattr(torch, dtype)
        a = torch.ones(size, size, dtype=kind, device=device.torch_name)
        out = torch.empty_like(a)
        return lambda: torch.mm(a, a, out=out)

    return 2.0 * size**3 / _seconds_each(device, prepare, "measuring its speed")


def measure_bandwidth(device: Device) -> float:
    """Bytes per second that a large copy reads and writes; takes some 0.1 s.

    Raises ComputeFailed when the device fails.
    """
    num_bytes = min((32 if device.kind == "cpu" else 256) << 20, max(device.free_bytes // 8, 1))

    def prepare() -> Callable[[], object]:
        source = torch.zeros(num_bytes, dtype=torch.uint8, device=device.torch_name)
        target = torch.empty_like(source)
        return lambda: target.copy_(source)

    return 2.0 * num_bytes / _seconds_each(device, prepare, "measuring its memory")


def _seconds_each(device: Device, prepare: Callable[[], Callable[[], object]], what: str) -> float:
    """The mean time of a call over `MEASURE_S`, or over one call where that takes longer."""
    try:
        with torch.inference_mode():
            run = prepare()
            run()
            _wait(device)
            began, calls, elapsed = time.perf_counter(), 0, 0.0
            while elapsed < MEASURE_S:
                run()
                calls += 1
                _wait(device)
                elapsed = time.perf_counter() - began
            return elapsed / calls
    except (RuntimeError, MemoryError) as error:
        reason = escape(str(error).partition("\n")[0])
        raise ComputeFailed(f"{device.torch_name}: {what} failed: {reason}") from None
    finally:
        _release(device)


def _release(device: Device) -> None:
    """Give memory that torch keeps for later back to the driver, which counts what is free."""
    if device.kind == "cuda":
        torch.cuda.empty_cache()
    elif device.kind == "xpu":
        torch.xpu.empty_cache()
    elif device.kind == "mps":
        torch.mps.empty_cache()


def _wait(device: Device) -> None:
    """Until the device has done what it was given."""
    if device.kind == "cuda":
        torch.cuda.synchronize(device.index)
    elif device.kind == "xpu":
        torch.xpu.synchronize(device.index)
    elif device.kind == "mps":
        torch.mps.synchronize()


def _count(kind: Kind) -> int:
    match kind:
        case "cuda":
            return torch.cuda.device_count() if torch.cuda.is_available() else 0
        case "xpu":
            return torch.xpu.device_count() if torch.xpu.is_available() else 0
        case "mps":
            return int(torch.backends.mps.is_available())
        case "cpu":
            return 1


def _inspect(kind: Kind, index: int) -> Device:
    try:
        match kind:
            case "cuda":
                free, total = torch.cuda.mem_get_info(index)
                return Device(kind, torch.cuda.get_device_name(index), total, free, index)
            case "xpu":
                free, total = torch.xpu.mem_get_info(index)
                return Device(kind, torch.xpu.get_device_name(index), total, free, index)
            case "mps":
                total = torch.mps.recommended_max_memory()
                free = max(0, total - torch.mps.driver_allocated_memory())
                return Device(kind, _cpu_name(), total, free)
            case "cpu":
                memory = psutil.virtual_memory()
                return Device(kind, _cpu_name(), memory.total, memory.available)
    except RuntimeError as error:
        reason = escape(str(error).partition("\n")[0])
        raise ComputeFailed(f"{kind}:{index} is there and does not answer: {reason}") from None


def _cpu_name(cpu_info: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's own name where the system tells, else the architecture's."""
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return escape(next(names, "") or platform.processor() or platform.machine() or "CPU", 64)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on whatever device."""
    words = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError)
        and any(text in words for text in ("out of memory", "can't allocate memory"))
    )


def release_memory() -> None:
    """Give back what the allocator holds in reserve, after an allocation failed."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
