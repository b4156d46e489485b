"""Which device, which dtype, how fast. Devices that are not here are reported as such."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest
import torch

from p2pnode.errors import BadRequest, ComputeFailed
from p2pnode.model.device import (
    KINDS,
    SMALL_MODEL_BYTES,
    Device,
    Kind,
    choose_device,
    cpu_has_bfloat16,
    default_dtype,
    measure_bandwidth,
    measure_flops,
)


def is_here(kind: Kind) -> bool:
    try:
        return choose_device(kind).kind == kind
    except BadRequest:
        return False


def test_auto_takes_the_first_that_is_here() -> None:
    here = [kind for kind in KINDS if is_here(kind)]
    assert choose_device().kind == here[0]
    assert here[-1] == "cpu"


def test_the_memory_of_a_cpu_is_ram_and_says_so() -> None:
    device = choose_device("cpu")
    assert device.total_bytes == psutil.virtual_memory().total
    assert 0 < device.free_bytes < device.total_bytes
    assert device.torch_name == "cpu" and device.name
    assert "RAM" in str(device) and "VRAM" not in str(device)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cpu"])
def test_an_accelerator_is_inspected_or_said_to_be_missing(kind: Kind) -> None:
    if not is_here(kind):
        with pytest.raises(BadRequest, match=r"not here; this machine has: .*cpu \(1\)"):
            choose_device(kind)
        return
    device = choose_device(kind)
    assert torch.zeros(1, device=device.torch_name).item() == 0.0
    assert 0 < device.free_bytes <= device.total_bytes and "VRAM" in str(device)


@pytest.mark.parametrize("text", ["cuda:99", "cpu:1"])
def test_an_index_beyond_what_is_here_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match=f"{text} is not here"):
        choose_device(text)


@pytest.mark.parametrize(
    "text", ["", "gpu", "meta", "cuda:", "cuda:x", "cuda:-1", "cuda:²", "CPU", "cpu:00000", "\x1b"]
)
def test_what_names_no_device_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="is not one of auto, cuda"):
        choose_device(text)


def device(kind: Kind, index: int = 0) -> Device:
    return Device(kind, "any", 1 << 33, 1 << 32, index)


def test_torch_knows_the_devices_by_our_names() -> None:
    names = [device("cuda", 1).torch_name, device("xpu").torch_name, device("mps").torch_name]
    assert names == ["cuda:1", "xpu:0", "mps"]
    assert [torch.device(name).type for name in names] == ["cuda", "xpu", "mps"]


@pytest.mark.parametrize("kind", KINDS)
def test_small_models_are_exact_everywhere(kind: Kind) -> None:
    dtype, reason = default_dtype(device(kind), SMALL_MODEL_BYTES)
    assert dtype == "float32" and "exact" in reason


def test_large_models_take_half_the_memory_where_the_device_can() -> None:
    large = SMALL_MODEL_BYTES + 1
    assert default_dtype(device("cuda"), large)[0] == "bfloat16"
    assert default_dtype(device("xpu"), large)[0] == "bfloat16"
    assert default_dtype(device("mps"), large)[0] == "float32"
    expected = "bfloat16" if cpu_has_bfloat16() else "float32"
    assert default_dtype(device("cpu"), large)[0] == expected


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("processor: 0\nflags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags: fpu amx_tile amx_bf16\n", True),
        ("Features\t: fp asimd bf16 sve\n", True),
        ("flags: fpu avx2 avx512f\nmodel name: bf16\n", False),
        ("", False),
    ],
)
def test_bfloat16_is_read_from_what_the_processor_says(
    tmp_path: Path, text: str, has: bool
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    assert cpu_has_bfloat16(file) is has
    assert cpu_has_bfloat16(tmp_path / "missing") is False


def test_measuring_is_quick_and_plausible() -> None:
    chosen = choose_device()
    began = time.perf_counter()
    flops = measure_flops(chosen, "float32")
    bandwidth = measure_bandwidth(chosen)
    assert time.perf_counter() - began < 3.0  # 0.3 s on a quiet machine
    assert 1e8 < flops < 1e16 and 1e8 < bandwidth < 1e14


def test_a_device_that_fails_is_an_error_of_this_machine() -> None:
    with pytest.raises(ComputeFailed, match="cpu: measuring its speed failed: "):
        measure_flops(choose_device("cpu"), "bool")  # no device multiplies these
