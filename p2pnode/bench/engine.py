"""What one device makes of many sessions, and of long ones; in this process, without a network.

`growth_8k`: a decode step must not cost more for what the session holds already, beside attention
itself. `batch_knee`: forwards of 1 to 64 sessions are measured; then the scheduler of the product
is driven in simulated time by Poisson arrivals and those times, once with each fixed limit and once
with its own, and the highest rate is searched at which the p95 of the waiting time stays short.
"""

from __future__ import annotations

import itertools
import random
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from torch.nn.functional import scaled_dot_product_attention

from p2pnode.bench.result import Row, at_least, at_most, figure
from p2pnode.model.block import Block, Work
from p2pnode.model.cache import KVCache
from p2pnode.model.spec import read_config, read_spec
from p2pnode.model.tensor import zeros
from p2pnode.serving.scheduler import Scheduler
from p2pnode.serving.tally import Tally
from p2pnode.types import LayerRange

ROUNDS = 5
STEPS = 7
SHORT, LONG, LONGEST = 1024, 8192, 32_768
CHUNK = 512
LIMITS = (1, 2, 4, 8, 16, 32, 64)
CONTEXT = 128
ARRIVALS = 2000
MAX_WAITING = 400
"""More waiting means that the rate cannot be kept up."""
WAIT_STEPS = 2.0
"""The p95 of waiting times may be so many times the step of a single session."""
SEARCH_STEPS = 7

Note = Callable[[str], None]


def load(folder: Path, *, dtype: str = "float32") -> Block:
    """All layers of the model in a folder, on one thread of this CPU."""
    torch.set_num_threads(1)
    spec = read_spec(folder, folder.name, "")
    return Block.load(folder, spec, LayerRange(0, spec.num_layers), device="cpu", dtype=dtype)


# --- growth


def growth_8k(folder: Path, note: Note) -> list[Row]:
    """Decode at 8k and at 1k tokens of context, each less its attention; and a session of 32k."""
    block, heads = load(folder), int(read_config(folder).num_attention_heads)
    caches = {tokens: block.new_cache(LONG + ROUNDS * STEPS + 1) for tokens in (SHORT, LONG)}
    for tokens, cache in caches.items():
        _fill(block, cache, tokens)
    ratios, plain = [], []
    for index in range(ROUNDS):
        note(f"growth: round {index + 1} of {ROUNDS}")
        rest = {
            tokens: _beside_attention_s(block, cache, heads) for tokens, cache in caches.items()
        }
        ratios.append(rest[LONG] / rest[SHORT])
        plain.append(rest[SHORT] * 1000)
    longest = block.new_cache(LONGEST)
    appends = _fill(block, longest, LONGEST)
    halves = median(appends[: len(appends) // 2]), median(appends[len(appends) // 2 :])
    return [
        at_most("growth_8k", ratios, "ratio", 1.3, median(plain)),
        figure("growth_32k_append", [halves[1] / halves[0]], "ratio", halves[0] * 1000),
    ]


def _widths(cache: KVCache) -> list[tuple[int, int, int]]:
    return [(w.kv_heads, w.key_size, w.value_size) for w in cache.pool.layout.layers]


@torch.inference_mode()
def _fill(block: Block, cache: KVCache, tokens: int) -> list[float]:
    """Append random keys and values without computing them; seconds per chunk."""
    chunk = min(CHUNK, tokens)
    made = [
        (torch.randn(1, heads, chunk, key), torch.randn(1, heads, chunk, value))
        for heads, key, value in _widths(cache)
    ]
    seconds = []
    while cache.position < tokens:
        began = time.perf_counter()
        for layer, (keys, values) in zip(block.layers, made, strict=True):
            cache.append(layer, keys, values)
        cache.advance(chunk)
        seconds.append(time.perf_counter() - began)
    return seconds


def _beside_attention_s(block: Block, cache: KVCache, heads: int) -> float:
    """Median time of a decode step, less that of its attention calls alone."""
    row = zeros((1, block.spec.hidden_size), block.dtype, block.device) + 0.1
    rest = []
    for _ in range(STEPS):
        began = time.perf_counter()
        block.forward([Work(cache=cache, position=cache.position, entry=row)])
        step_s = time.perf_counter() - began
        rest.append(step_s - _attention_s(cache, heads))
    return median(rest)


@torch.inference_mode()
def _attention_s(cache: KVCache, heads: int) -> float:
    """The attention calls of one decode step of all layers, over the same memory."""
    queries = [torch.randn(1, kv, heads // kv, key) for kv, key, _ in _widths(cache)]
    seconds = 0.0
    for query, keys, values in zip(queries, cache.slab.keys, cache.slab.values, strict=True):
        seen = slice(cache.slot, cache.slot + 1), slice(None), slice(0, cache.position)
        began = time.perf_counter()
        scaled_dot_product_attention(query, keys[seen], values[seen])
        seconds += time.perf_counter() - began
    return seconds


# --- the knee


def batch_knee(folder: Path, note: Note) -> list[Row]:
    """Rates at which steps wait for at most two steps (p95), by the limit of a batch."""
    block = load(folder)
    samples = _step_times(block, note)
    step_s = {sessions: median(times) for sessions, times in samples.items()}
    note("batch knee: simulating arrivals")
    rates = {limit: _best_rate(step_s, limit) for limit in LIMITS}
    own = _best_rate(step_s, None)
    best = max(*rates.values(), own)
    own_limit = _own_limit(step_s)
    return [
        at_least("batch_knee", [own / best], "ratio", 0.9, best),
        figure("batch_knee_own_limit", [own_limit], "tokens"),
        *(figure(f"batch_knee_rate_{limit}", [rate], "steps/s") for limit, rate in rates.items()),
        *(
            figure(f"batch_step_{sessions}", [each * 1000 for each in times], "ms")
            for sessions, times in samples.items()
        ),
        figure("batch_8_over_sequence", [8 * step_s[1] / step_s[8]], "ratio"),
        figure("batch_32_over_sequence", [32 * step_s[1] / step_s[32]], "ratio"),
    ]


def _step_times(block: Block, note: Note) -> dict[int, list[float]]:
    """Seconds of a decode forward by number of sessions, one value per round, interleaved."""
    caches = [block.new_cache(CONTEXT + 1) for _ in range(max(LIMITS))]
    for cache in caches:
        _fill(block, cache, CONTEXT)
    row = zeros((1, block.spec.hidden_size), block.dtype, block.device) + 0.1
    times: dict[int, list[float]] = {limit: [] for limit in LIMITS}
    for index in range(ROUNDS):
        note(f"batch knee: round {index + 1} of {ROUNDS}")
        for sessions in LIMITS:
            work = [Work(cache=cache, position=CONTEXT, entry=row) for cache in caches[:sessions]]
            taken = []
            for _ in range(3):
                began = time.perf_counter()
                block.forward(work)
                taken.append(time.perf_counter() - began)
            times[sessions].append(min(taken))
    return times


@dataclass(eq=False, slots=True)
class Arrival:
    """One step of a session that steps once."""

    submitted_at: float
    session: object = field(default_factory=object)
    block: object = None
    client: str = ""
    num_tokens: int = 1
    is_void: bool = False
    is_lazy: bool = False

    def split(self, num_tokens: int) -> Arrival:
        """Never happens to one token."""
        raise ValueError("one token cannot be split")


def _best_rate(step_s: Mapping[int, float], limit: int | None) -> float:
    """Steps per second at which the p95 of waiting times stays within bounds."""
    low, high = 0.0, 1.0 / min(each / sessions for sessions, each in step_s.items())
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        if _p95_wait_s(step_s, limit, middle) <= WAIT_STEPS * step_s[1]:
            low = middle
        else:
            high = middle
    return low


def _p95_wait_s(step_s: Mapping[int, float], limit: int | None, rate: float) -> float:
    """Of steps that arrive at random; infinite when they cannot be kept up with."""
    rng, tally = random.Random(0), Tally()
    queue: Scheduler[Arrival] = Scheduler(tally.cost, batch_limit=limit)
    times = itertools.accumulate(rng.expovariate(rate) for _ in range(ARRIVALS))
    left = [Arrival(at) for at in times][::-1]
    now, waits = 0.0, []
    while left or queue.num_waiting:
        while left and left[-1].submitted_at <= now:
            queue.put(left.pop())
        if queue.num_waiting > MAX_WAITING:
            return float("inf")
        batch = queue.take(now)
        if not batch:
            now = left[-1].submitted_at
            continue
        waits += [now - job.submitted_at for job in batch]
        compute_s = _interpolated(step_s, len(batch))
        tally.forward(len(batch), compute_s)
        now += compute_s
    return sorted(waits)[int(0.95 * len(waits))]


def _own_limit(step_s: Mapping[int, float]) -> int:
    """What the scheduler chooses after forwards of all sizes."""
    tally = Tally()
    for sessions, seconds in step_s.items():
        tally.forward(sessions, seconds)
    return Scheduler[Arrival](tally.cost).batch_limit


def _interpolated(step_s: Mapping[int, float], sessions: int) -> float:
    sizes: Sequence[int] = sorted(step_s)
    index = min(max(1, bisect_left(sizes, sessions)), len(sizes) - 1)
    low, high = sizes[index - 1], sizes[index]
    share = (sessions - low) / (high - low)
    return step_s[low] + share * (step_s[high] - step_s[low])
