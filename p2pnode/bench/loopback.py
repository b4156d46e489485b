"""`p2pnode bench loopback`: chains of real processes next to `transformers`, interleaved.

Each model is served by chains of 1, 2 and 3 nodes, one thread each, and run in this process by
transformers' generate; a round runs all of them, and ratios are formed within a round.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from p2pnode.bench.local import Local
from p2pnode.bench.models import NUM_LAYERS, make_thin, make_wide
from p2pnode.bench.result import Row, at_least, at_most, figure, result
from p2pnode.bench.timing import Timing
from p2pnode.client.client import Client
from p2pnode.client.events import Done, Token
from p2pnode.config import ClientConfig, SwarmConfig, home
from p2pnode.model.memory import read_sizes
from p2pnode.model.source import find_model
from p2pnode.model.spec import read_config
from p2pnode.node.processes import NodeProcess, NodeProcesses
from p2pnode.types import LayerRange

ROUNDS = 5
DECODE_TOKENS = 48
THIN_TOKENS = 200
LONG_PROMPT = 1024
PROMPT = [1, 403, 407, 261]
STARTS = 3
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Chain:
    """A swarm of its own that splits one model, and a client in it."""

    nodes: list[NodeProcess]
    client: Client

    async def run(self, prompt: list[int], num_tokens: int) -> Timing:
        """One greedy generation of at most so many tokens."""
        began, at = time.perf_counter(), []
        async for event in self.client.stream(prompt, max_tokens=num_tokens):
            if isinstance(event, Token):
                at.append(time.perf_counter())
            elif isinstance(event, Done):
                compute_s = sum(hop.compute_s / max(1, hop.num_steps) for hop in event.hops)
        return Timing.of(began, at, compute_s)


async def loopback(note: Note) -> dict[str, Any]:
    """All rows of the table; takes some minutes."""
    with tempfile.TemporaryDirectory(prefix="p2pnode-bench-") as name:
        folder = Path(name)
        note("making random models")
        wide = await asyncio.to_thread(make_wide, folder / "wide")
        thin = await asyncio.to_thread(make_thin, folder / "thin")
        rows = await _overhead(folder, thin, note)
        rows += await _wide(folder, wide, note)
        rows += await _builtin(folder, note)
    return result(rows)


async def _overhead(folder: Path, thin: Path, note: Note) -> list[Row]:
    """What a hop costs beside its compute."""
    async with AsyncExitStack() as stack:
        chains = [
            await stack.enter_async_context(local_chain(folder, str(thin), NUM_LAYERS, parts, note))
            for parts in (1, 2, 3)
        ]
        await chains[2].run(PROMPT, THIN_TOKENS)
        by_length: dict[int, list[float]] = {1: [], 2: [], 3: []}
        for index in range(ROUNDS):
            note(f"overhead per hop: round {index + 1} of {ROUNDS}")
            for chain in chains:
                timing = await chain.run(PROMPT, THIN_TOKENS)
                hops = len(chain.nodes)
                by_length[hops].append((timing.token_s - timing.compute_s) / hops * 1000)
    return [
        at_most("hop_overhead_ms_p50", by_length[3], "ms", 1.5),
        *(figure(f"hop_overhead_ms_p50_chain{hops}", by_length[hops], "ms") for hops in (1, 2)),
    ]


async def _wide(folder: Path, wide: Path, note: Note) -> list[Row]:
    """Decode, first token and memory of a model that takes 40 ms per token or more."""
    local = await asyncio.to_thread(Local, wide)
    long_prompt = [index % 500 + 3 for index in range(LONG_PROMPT)]
    async with AsyncExitStack() as stack:
        chains = {
            parts: await stack.enter_async_context(
                local_chain(folder, str(wide), NUM_LAYERS, parts, note)
            )
            for parts in (1, 2, 3)
        }
        rss = await _rss(folder, chains[1].nodes[0], wide)
        ratios: dict[int, list[float]] = {1: [], 2: [], 3: []}
        base, ttft_ratio, ttft_s = [], [], []
        for index in range(ROUNDS):
            note(f"model of 0.73 GB: round {index + 1} of {ROUNDS}")
            alone = await asyncio.to_thread(local.run, PROMPT, DECODE_TOKENS)
            base.append(alone.token_s * 1000)
            for parts, chain in chains.items():
                ratios[parts].append(
                    alone.token_s / (await chain.run(PROMPT, DECODE_TOKENS)).token_s
                )
            first = await asyncio.to_thread(local.run, long_prompt, 2)
            ours = await chains[3].run(long_prompt, 2)
            ttft_s.append(first.ttft_s)
            ttft_ratio.append(ours.ttft_s / first.ttft_s)
    local_ms = median(base)
    return [
        at_least("chain3_over_local_40ms", ratios[3], "ratio", 0.85, local_ms),
        *(
            figure(f"chain{parts}_over_local_40ms", ratios[parts], "ratio", local_ms)
            for parts in (1, 2)
        ),
        figure("local_ms_per_token", base, "ms"),
        at_most("ttft_ratio_1024", ttft_ratio, "ratio", 1.3, median(ttft_s), median(ttft_ratio)),
        rss,
    ]


async def _builtin(folder: Path, note: Note) -> list[Row]:
    """The built-in model: decode next to local, and the time to start."""
    files = find_model(None, cache=folder)
    local = await asyncio.to_thread(Local, files.folder)
    ratios, base, starts = [], [], []
    async with local_chain(folder, None, 27, 3, note) as chain:
        await chain.run(PROMPT, DECODE_TOKENS)
        for index in range(ROUNDS):
            note(f"built-in model: round {index + 1} of {ROUNDS}")
            alone = await asyncio.to_thread(local.run, PROMPT, DECODE_TOKENS)
            ours = await chain.run(PROMPT, DECODE_TOKENS)
            base.append(alone.token_s * 1000)
            ratios.append(alone.token_s / ours.token_s)
    for index in range(STARTS):
        note(f"starting a node: {index + 1} of {STARTS}")
        starts.append(await _start_s(_place(folder, f"start-{index}")))
    return [
        at_least("chain3_over_local_builtin", ratios, "ratio", 0.5, median(base)),
        at_most("start_s", starts, "s", 8.0),
    ]


@asynccontextmanager
async def local_chain(
    folder: Path, model: str | None, num_layers: int, parts: int, note: Note
) -> AsyncIterator[Chain]:
    """Start a swarm of ``parts`` nodes that split a model evenly, and a client."""
    note(f"starting {parts} node{'s' if parts > 1 else ''} of {Path(model or 'the built-in').name}")
    place = _place(folder, f"{Path(model or 'builtin').name}-{parts}")
    edges = [part * num_layers // parts for part in range(parts + 1)]
    async with NodeProcesses(place, model=model, environment=ONE_THREAD) as processes:
        for start, stop in itertools.pairwise(edges):
            join = processes.nodes[0].address if processes.nodes else ""
            node = await processes.listen(LayerRange(start, stop), join)
            await processes.serve(node)
        swarm = SwarmConfig(
            home=home(place), join=(processes.nodes[0].address,), starts_swarm=False
        )
        # Prompts are repeated, and each time all of them is to be computed.
        config = ClientConfig(swarm=swarm, cache=swarm.home.cache, keeps_prefixes=False)
        async with Client(config=config, model=model) as client:
            yield Chain(list(processes.nodes), client)


async def _rss(folder: Path, node: NodeProcess, wide: Path) -> Row:
    """Memory of the node with the whole wide model, next to one with almost nothing."""
    place = _place(folder, "base")
    async with NodeProcesses(place, environment=ONE_THREAD) as processes:
        small = await processes.listen(LayerRange(0, 1))
        await processes.serve(small)
        base = psutil.Process(small.process.pid).memory_info().rss
    held = psutil.Process(node.process.pid).memory_info().rss
    sizes = read_sizes(read_config(wide), "float32")
    tensors = sizes.weights_bytes(sizes.whole)
    ratio = (held - base) / tensors
    return at_most("node_rss_over_tensors", [ratio], "ratio", 1.15, base / 1e6, ratio)


def _place(folder: Path, name: str) -> Path:
    """A home for a swarm."""
    place = folder / name
    place.mkdir()
    return place


async def _start_s(place: Path) -> float:
    """From the start of the process to "serving", with the whole built-in model."""
    async with NodeProcesses(place, environment=ONE_THREAD) as processes:
        began = time.perf_counter()
        await processes.serve(await processes.listen(LayerRange(0, 27)))
        return time.perf_counter() - began
