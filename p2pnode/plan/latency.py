"""How long steps take, on one machine, in a chain, and in other arrangements; see the package."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from p2pnode.plan.machine import EFFICIENCY, HOP_S, Machine, Ways, Work
from p2pnode.sizes import ModelSizes
from p2pnode.types import LayerRange

CHUNKS = (16, 32, 64, 128, 256)
"""Sizes in which a prompt may travel."""
GROUPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


@dataclass(frozen=True, slots=True)
class Part:
    """One machine's part of a chain."""

    machine: Machine
    layers: LayerRange


class Compute:
    """Times of steps by range of layers, of one model; ranges may be arrays of edges."""

    def __init__(self, sizes: ModelSizes) -> None:
        self.sizes = sizes
        parts = sizes.layers
        self._dense = _sums(p.weights_bytes - p.expert_bytes for p in parts)
        self._experts = _sums(p.expert_bytes for p in parts)
        self._active = _sums(
            p.num_weights - p.num_expert_weights * (1.0 - sizes.expert_share) for p in parts
        )
        self._kv = _sums(p.kv_bytes_per_token for p in parts)

    def step_s(
        self, machine: Machine, start: Any, stop: Any, *, rows: float, sessions: int, held: int
    ) -> Any:
        """The time of a step through layers ``start, ..., stop - 1``: numbers, or arrays of them.

        rows: new tokens; sessions: of so many sessions; held: tokens that each of them holds
        """
        sizes = self.sizes
        touched = 1.0 - (1.0 - sizes.expert_share) ** rows
        read = self._dense[stop] - self._dense[start]
        read = read + touched * (self._experts[stop] - self._experts[start])
        read = read + sessions * held * (self._kv[stop] - self._kv[start])
        work = 2.0 * rows * (self._active[stop] - self._active[start])
        work = work + 4.0 * rows * held * sizes.hidden_size * (stop - start)
        is_last = np.equal(stop, len(sizes.layers))
        read = read + is_last * sizes.head.weights_bytes
        work = work + is_last * 2.0 * min(rows, sessions) * sizes.head.num_weights
        reading_s = read / (machine.memory_bytes_per_s * EFFICIENCY)
        working_s = work / (machine.flops_per_s * EFFICIENCY)
        return np.maximum(reading_s, working_s) * machine.slowness

    def decode_s(self, part: Part, rows: float, work: Work) -> float:
        """One new token of so many sessions with full contexts."""
        where, held = part.layers, work.context_tokens
        sessions = math.ceil(rows)
        step = self.step_s(
            part.machine, where.start, where.stop, rows=rows, sessions=sessions, held=held
        )
        return float(step)

    def prefill_s(self, part: Part, rows: float, work: Work) -> float:
        """So many tokens of one prompt, half of which is there already, in the mean."""
        where, held = part.layers, work.context_tokens // 2
        step = self.step_s(part.machine, where.start, where.stop, rows=rows, sessions=1, held=held)
        return float(step)


def _sums(values: Any) -> Any:
    """Of the first 0, 1, 2, ... of them."""
    return np.concatenate(([0.0], np.cumsum(np.fromiter(values, dtype=np.float64))))


@dataclass(frozen=True, slots=True)
class Speed:
    """What an arrangement of machines is predicted to do."""

    token_s: float
    """From one token of a session to its next, all sessions at once."""
    tokens_per_s: float
    """Of all sessions together."""
    ttft_s: float


def chain_speed(compute: Compute, parts: Sequence[Part], ways: Ways, work: Work) -> Speed:
    """A chain over the network; its client is as far away as any peer."""
    row_s = compute.sizes.row_bytes / ways.up_bytes_per_s
    fixed_s = len(parts) * HOP_S + (len(parts) + 1) * ways.rtt_s / 2

    def times(step_s: Callable[[Part, float, Work], float], rows: float) -> tuple[float, float]:
        """(through the whole chain, the slowest hop or link)"""
        each = [step_s(part, rows, work) for part in parts]
        send_s = rows * row_s if len(parts) > 1 else 0.0
        return sum(each) + fixed_s + (len(parts) - 1) * send_s, max(*each, send_s)

    def rate(groups: int) -> tuple[float, float]:
        token_s, pace_s = times(compute.decode_s, work.batch / groups)
        period_s = max(token_s, groups * pace_s)
        return work.batch / period_s, -period_s

    tokens_per_s, minus_s = max(rate(g) for g in GROUPS if g <= work.batch)
    return Speed(-minus_s, tokens_per_s, _first_s(lambda q: times(compute.prefill_s, q), work))


def one_machine_speed(compute: Compute, machine: Machine, work: Work) -> Speed:
    """The whole model in one place, and its user there."""
    part = Part(machine, compute.sizes.whole)
    token_s = compute.decode_s(part, work.batch, work)

    def times(rows: float) -> tuple[float, float]:
        step_s = compute.prefill_s(part, rows, work)
        return step_s, step_s

    return Speed(token_s, work.batch / token_s, _first_s(times, work))


def tensor_parallel_speed(compute: Compute, parts: Sequence[Part], ways: Ways, work: Work) -> Speed:
    """Every matrix cut into as many pieces as there are machines."""
    num = len(parts)
    row_s = 2.0 * (num - 1) / num * compute.sizes.row_bytes / ways.up_bytes_per_s

    def reduces_s(rows: float) -> float:
        return 2.0 * len(compute.sizes.layers) * (ways.rtt_s + rows * row_s)

    def times(rows: float) -> tuple[float, float]:
        step_s = sum(compute.prefill_s(part, rows, work) for part in parts) / num
        return step_s + reduces_s(rows), step_s + reduces_s(rows)

    token_s = sum(compute.decode_s(part, work.batch, work) for part in parts) / num
    token_s += reduces_s(work.batch)
    return Speed(token_s, work.batch / token_s, _first_s(times, work))


def even_parts(parts: Sequence[Part], num_layers: int, num_stages: int) -> tuple[Part, ...]:
    """The layers cut into so many stages, on machines like these in turn."""
    count = min(num_stages, num_layers)
    edges = [index * num_layers // count for index in range(count + 1)]
    return tuple(
        Part(parts[index * len(parts) // count].machine, LayerRange(edges[index], edges[index + 1]))
        for index in range(count)
    )


def _first_s(times: Callable[[float], tuple[float, float]], work: Work) -> float:
    """The first token of a prompt that is cut into the best chunks."""
    sizes = {min(size, work.context_tokens) for size in (*CHUNKS, work.chunk_tokens)}

    def first(size: int) -> float:
        fill_s, pace_s = times(size)
        return fill_s + (math.ceil(work.context_tokens / size) - 1) * pace_s

    return min(map(first, sizes))
