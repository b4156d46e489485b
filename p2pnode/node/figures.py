"""What a node measures of itself before it announces: device, speed, room."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from p2pnode.errors import DoesNotFit
from p2pnode.model.block import Block, Work
from p2pnode.model.device import Device, choose_threads, measure_bandwidth, measure_flops
from p2pnode.model.tensor import zeros
from p2pnode.types import DTYPE_BYTES, LayerRange

WARM_UP_STEPS = 2
MEASURED_STEPS = 5
MEMORY_SHARE = 0.8
"""The part of what is free after loading that sessions may fill."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Measured once, after loading."""

    device: Device
    flops_per_s: float
    memory_bytes_per_s: float
    latency_s: float
    """Median time of one decode step through the block."""
    tokens_per_s: float
    kv_capacity_tokens: int
    bytes_per_token: int


def measure(block: Block, device: Device, *, max_session_tokens: int) -> Figures:
    """Run a few steps and count; raises DoesNotFit when not even one session has room."""
    latency_s = choose_threads(device, lambda: _decode_latency_s(block))
    bytes_per_token = session_bytes_per_token(block)
    capacity = int(device.free_bytes * MEMORY_SHARE) // bytes_per_token
    if capacity < min(max_session_tokens, block.spec.max_positions):
        what = f"{device.free_bytes} bytes free on {device.name}"
        raise DoesNotFit(f"{what}: room for {capacity} tokens of KV; serve fewer layers")
    return Figures(
        device=device,
        flops_per_s=measure_flops(device, block.dtype),
        memory_bytes_per_s=measure_bandwidth(device),
        latency_s=latency_s,
        tokens_per_s=1.0 / latency_s,
        kv_capacity_tokens=capacity,
        bytes_per_token=bytes_per_token,
    )


def session_bytes_per_token(block: Block, layers: LayerRange | None = None) -> int:
    """KV, plus a row that waits to be computed, plus a row of the journal.

    layers: those of the block that the session runs; None: all
    """
    row_bytes = block.spec.hidden_size * DTYPE_BYTES[block.dtype]
    share = len(layers or block.layers) / len(block.layers)
    return math.ceil(block.kv_bytes_per_token * share) + 2 * row_bytes


def _decode_latency_s(block: Block) -> float:
    cache = block.new_cache(WARM_UP_STEPS + MEASURED_STEPS)
    row = zeros((1, block.spec.hidden_size), block.dtype, block.device)
    times = []
    for position in range(WARM_UP_STEPS + MEASURED_STEPS):
        began = time.perf_counter()
        block.forward([Work(cache=cache, position=position, entry=row)])
        times.append(time.perf_counter() - began)
    return sorted(times[WARM_UP_STEPS:])[MEASURED_STEPS // 2]
