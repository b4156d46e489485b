"""Which machine serves which layers: the contiguous split whose tokens take the least time.

Dynamic programming over machines and layers: the best way to have the first b layers on some of
the machines so far is the best way to have the first a of them, and a machine more. The order of
the machines matters for the ends only, which weigh more than layers do: each kind of machine is
tried as the first and as the last one, the others follow as they are given. Of splits that are
equally fast, an even one is taken: with several sessions, and for prompts, the slowest hop counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from p2pnode.errors import BadRequest
from p2pnode.plan.latency import Compute, Part
from p2pnode.plan.machine import HOP_S, Machine, Ways, Work
from p2pnode.types import LayerRange

MAX_LAYERS = 512
MAX_ENDS = 8
"""So many machines are tried for an end."""
EVENNESS = 1e-3
"""How much slower an even split may be than the fastest one."""


class Splitter:
    """Splits one model over sets of machines."""

    def __init__(self, compute: Compute, ways: Ways, work: Work) -> None:
        """Raises BadRequest for a model with more layers than `MAX_LAYERS`."""
        self._compute = compute
        self._work = work
        self._num = len(compute.sizes.layers)
        if self._num > MAX_LAYERS:
            raise BadRequest(f"a plan is for models of at most {MAX_LAYERS} layers: {self._num}")
        row_s = work.batch * compute.sizes.row_bytes / ways.up_bytes_per_s
        self._hop_s = HOP_S + ways.rtt_s / 2 + row_s
        edges = np.arange(self._num + 1)
        self._starts, self._stops = edges[:, None], edges[None, :]
        self._needed = np.full((self._num + 1, self._num + 1), np.inf)
        for start in range(self._num):
            for stop in range(start + 1, self._num + 1):
                self._needed[start, stop] = self.needed_bytes(LayerRange(start, stop))

    def needed_bytes(self, layers: LayerRange) -> int:
        """The memory with which a machine can serve them."""
        work = self._work
        needed = self._compute.sizes.needed(
            layers, session_tokens=work.session_tokens, step_tokens=work.chunk_tokens
        )
        return needed.total_bytes

    def alone(self, machines: Sequence[Machine]) -> Machine | None:
        """The fastest machine that can serve the whole model; None where it fits nowhere."""
        fitting = [m for m in machines if self._needed[0, self._num] <= m.memory_bytes]
        times = {m: float(self._times(m)[0, self._num]) for m in fitting}
        return min(times, key=lambda m: times[m], default=None)

    def split(self, machines: Sequence[Machine]) -> tuple[Part, ...]:
        """The best over two machines or more; empty where none fits."""
        times = [self._times(machine) for machine in machines]
        best_s: float = np.inf
        best: tuple[Part, ...] = ()
        for first, last in _ends(machines):
            others = [i for i in range(len(machines)) if i not in (first, last)]
            total_s, parts = self._best([times[i] for i in (first, *others, last)])
            if total_s < best_s:
                order = [machines[i] for i in (first, *others, last)]
                best_s, best = total_s, tuple(Part(order[at], where) for at, where in parts)
        return best

    def _times(self, machine: Machine) -> Any:
        """[start, stop]: what serving these layers adds to a token; infinite where none fit."""
        work = self._work
        compute_s = self._compute.step_s(
            machine,
            self._starts,
            self._stops,
            rows=work.batch,
            sessions=work.batch,
            held=work.context_tokens,
        )
        uneven_s = EVENNESS * compute_s**2 / compute_s[0, self._num]
        total_s = compute_s + uneven_s + self._hop_s
        return np.where(self._needed <= machine.memory_bytes, total_s, np.inf)

    def _best(self, times: Sequence[Any]) -> tuple[float, list[tuple[int, LayerRange]]]:
        """The first and the last of these have an end each, those between may be left out."""
        reached = times[0][0]
        choices = []
        for each in times[1:-1]:
            through = reached[:, None] + each
            start = through.argmin(0)
            added = through[start, self._stops[0]]
            is_better = added < reached
            choices.append(np.where(is_better, start, -1))
            reached = np.where(is_better, added, reached)
        closing = reached + times[-1][:, self._num]
        start = int(closing.argmin())
        total_s = float(closing[start])
        if not np.isfinite(total_s):
            return np.inf, []
        parts = [(len(times) - 1, LayerRange(start, self._num))]
        for at in range(len(choices), 0, -1):
            before = int(choices[at - 1][start])
            if before >= 0:
                parts.append((at, LayerRange(before, start)))
                start = before
        parts.append((0, LayerRange(0, start)))
        return total_s, parts[::-1]


def _ends(machines: Sequence[Machine]) -> Iterator[tuple[int, int]]:
    """Pairs of machines for the two ends; of equal machines, the first ones only."""
    kinds: dict[tuple[float, ...], list[int]] = {}
    for index, m in enumerate(machines):
        kind = (m.memory_bytes, m.memory_bytes_per_s, m.flops_per_s, m.slowness)
        kinds.setdefault(kind, []).append(index)
    largest = sorted(kinds.values(), key=lambda each: -machines[each[0]].memory_bytes)
    candidates = largest[:MAX_ENDS]
    for first, last in product(candidates, repeat=2):
        if first is not last:
            yield first[0], last[0]
        elif len(first) > 1:
            yield first[0], first[1]
