"""What a node measures of itself before it announces: device, speed, room."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from p2pnode.errors import DoesNotFit
from p2pnode.model.block import Block, Work
from p2pnode.model.device import Device, choose_threads, measure_bandwidth, measure_flops
from p2pnode.model.tensor import zeros
from p2pnode.sizes import capacity_tokens
from p2pnode.sizes import session_bytes_per_token as bytes_per_token_of
from p2pnode.types import DTYPE_BYTES, LayerRange

WARM_UP_STEPS = 2
MEASURED_STEPS = 5
CHUNK_TOKENS = 64
"""The other size of a step that is measured: clients cut prompts by what a chunk takes."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Measured once, after loading."""

    device: Device
    flops_per_s: float
    memory_bytes_per_s: float
    latency_s: float
    """Median time of one decode step through the block."""
    chunk_s: float
    """Median time of a step of `CHUNK_TOKENS`."""
    tokens_per_s: float
    kv_capacity_tokens: int
    bytes_per_token: int

    @property
    def step_times(self) -> tuple[tuple[int, float], ...]:
        """(tokens, seconds) of the steps that were measured."""
        return (1, self.latency_s), (CHUNK_TOKENS, self.chunk_s)


def measure(
    block: Block, device: Device, *, max_session_tokens: int, activation_bytes: int = 0
) -> Figures:
    """Run a few steps and count; raises DoesNotFit when not even one session has room.

    activation_bytes: what the largest step needs while it is computed
    """
    latency_s = choose_threads(device, lambda: _step_s(block, 1))
    bytes_per_token = session_bytes_per_token(block)
    capacity = capacity_tokens(device.free_bytes, activation_bytes, bytes_per_token)
    if capacity < min(max_session_tokens, block.spec.max_positions):
        what = f"{device.free_bytes} bytes free on {device.name}"
        raise DoesNotFit(f"{what}: room for {capacity} tokens of KV; serve fewer layers")
    return Figures(
        device=device,
        flops_per_s=measure_flops(device, block.dtype),
        memory_bytes_per_s=measure_bandwidth(device),
        latency_s=latency_s,
        chunk_s=_step_s(block, CHUNK_TOKENS),
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
    return bytes_per_token_of(math.ceil(block.kv_bytes_per_token * share), row_bytes)


def _step_s(block: Block, num_tokens: int) -> float:
    """Median time of a step of so many tokens, at the beginning of a session."""
    cache = block.new_cache(num_tokens)
    rows = zeros((num_tokens, block.spec.hidden_size), block.dtype, block.device)
    times = []
    for _ in range(WARM_UP_STEPS + MEASURED_STEPS):
        began = time.perf_counter()
        block.forward([Work(cache=cache, position=0, entry=rows)])
        times.append(time.perf_counter() - began)
    return sorted(times[WARM_UP_STEPS:])[MEASURED_STEPS // 2]
