"""`p2pnode bench loopback`: chains of real processes next to `transformers`, interleaved.

Each model is served by chains of 1, 2 and 3 nodes, one thread each, and run in this process by
transformers' generate; a round runs all of them, and ratios are formed within a round.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from p2pnode.bench.chains import ONE_THREAD, PROMPT, Note, local_chain, new_home
from p2pnode.bench.local import Local
from p2pnode.bench.models import NUM_LAYERS, make_thin, make_wide
from p2pnode.bench.overhead import overhead
from p2pnode.bench.result import Row, at_least, at_most, figure, result
from p2pnode.model.memory import read_sizes
from p2pnode.model.source import find_model
from p2pnode.model.spec import read_config
from p2pnode.node.processes import NodeProcess, NodeProcesses
from p2pnode.types import LayerRange

ROUNDS = 5
DECODE_TOKENS = 48
LONG_PROMPT = 1024
STARTS = 3


async def loopback(note: Note) -> dict[str, Any]:
    """All rows of the table; takes some minutes."""
    with tempfile.TemporaryDirectory(prefix="p2pnode-bench-") as name:
        folder = Path(name)
        note("making random models")
        thin = await asyncio.to_thread(make_thin, folder / "thin")
        rows = await overhead(folder, thin, note)
        # Only now: writing so much to the disk goes on in the background for a while.
        wide = await asyncio.to_thread(make_wide, folder / "wide")
        rows += await _wide(folder, wide, note)
        rows += await _builtin(folder, note)
    return result(rows)


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
        at_least("chain3_over_local_40ms", ratios[3], "ratio", 0.90, local_ms),
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
        starts.append(await _start_s(new_home(folder, f"start-{index}")))
    return [
        at_least("chain3_over_local_builtin", ratios, "ratio", 0.5, median(base)),
        at_most("start_s", starts, "s", 8.0),
    ]


async def _rss(folder: Path, node: NodeProcess, wide: Path) -> Row:
    """Memory of the node with the whole wide model, next to one with almost nothing."""
    place = new_home(folder, "base")
    async with NodeProcesses(place, environment=ONE_THREAD) as processes:
        small = await processes.listen(LayerRange(0, 1))
        await processes.serve(small)
        base = psutil.Process(small.process.pid).memory_info().rss
    held = psutil.Process(node.process.pid).memory_info().rss
    sizes = read_sizes(read_config(wide), "float32")
    tensors = sizes.weights_bytes(sizes.whole)
    ratio = (held - base) / tensors
    return at_most("node_rss_over_tensors", [ratio], "ratio", 1.15, base / 1e6, ratio)


async def _start_s(place: Path) -> float:
    """From the start of the process to "serving", with the whole built-in model."""
    async with NodeProcesses(place, environment=ONE_THREAD) as processes:
        began = time.perf_counter()
        await processes.serve(await processes.listen(LayerRange(0, 27)))
        return time.perf_counter() - began
