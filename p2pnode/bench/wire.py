"""`p2pnode bench wire`: what hidden states take on the wire, and what a hop costs beside computing.

- ``lossless``, ``int8``: bytes of all frames of prefill chunks (16 KiB and more in bfloat16) of the
  built-in model's hidden states, where a chain of three cuts it, over the plain bytes.
- ``hop_overhead_ms``: a chain of three nodes with next to no compute, 8 KiB per hidden state, in
  turns with the same number of plain processes on plain sockets (`bench.relay`).
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch

from p2pnode.bench.loopback import ONE_THREAD, PROMPT, Chain, Note
from p2pnode.bench.models import HIDDEN_SIZE, NUM_LAYERS, make_thin
from p2pnode.bench.relay import relays
from p2pnode.bench.result import Row, at_most, figure, result
from p2pnode.client.client import Client
from p2pnode.config import ClientConfig, SwarmConfig, home
from p2pnode.model.accuracy import TEXT
from p2pnode.model.block import Block, Work
from p2pnode.model.source import find_model
from p2pnode.model.spec import read_spec
from p2pnode.model.tensor import from_torch
from p2pnode.model.text import TextCodec
from p2pnode.node.processes import NodeProcesses
from p2pnode.numerics import INT8
from p2pnode.types import LayerRange, Tensor
from p2pnode.wire.coding import LOSSLESS, recoded
from p2pnode.wire.frames import FrameWriter
from p2pnode.wire.messages import Step

ROUNDS = 5
NUM_HOPS = 3
NUM_TOKENS = 300
FRAME_BYTES = HIDDEN_SIZE * 4
CHUNK_BYTES = 16 * 1024


async def wire(note: Note) -> dict[str, Any]:
    """All rows of the table; takes about a minute."""
    with tempfile.TemporaryDirectory(prefix="p2pnode-bench-") as name:
        folder = Path(name)
        note("coding hidden states of the built-in model")
        rows = await asyncio.to_thread(coding_rows, folder)
        thin = await asyncio.to_thread(make_thin, folder / "thin")
        rows += await overhead_rows(folder, thin, note)
    return result(rows)


def coding_rows(cache: Path) -> list[Row]:
    """``lossless`` and ``int8``, and how fast a core codes."""
    chunks = list(_chunks(cache))
    sizes = {
        coding: [_frame_bytes(chunk, coding) / chunk.num_bytes for chunk in chunks]
        for coding in (LOSSLESS, INT8)
    }
    speeds = {coding: [_speed(chunk, coding) for chunk in chunks] for coding in (LOSSLESS, INT8)}
    return [
        at_most("lossless", sizes[LOSSLESS], "ratio", 0.72),
        at_most("int8", sizes[INT8], "ratio", 0.53),
        figure("lossless_mb_per_s", speeds[LOSSLESS], "MB/s"),
        figure("int8_mb_per_s", speeds[INT8], "MB/s"),
    ]


async def overhead_rows(folder: Path, thin: Path, note: Note) -> list[Row]:
    """``hop_overhead_ms_p50`` and ``_p99`` of a chain of three, beside plain sockets."""
    ours: dict[float, list[float]] = {0.5: [], 0.99: []}
    floor: dict[float, list[float]] = {0.5: [], 0.99: []}
    async with _chain(folder, thin, note) as chain, relays(NUM_HOPS, FRAME_BYTES) as plain:
        await chain.run(PROMPT, NUM_TOKENS)
        await plain.run(NUM_TOKENS)
        for index in range(ROUNDS):
            note(f"overhead per hop: round {index + 1} of {ROUNDS}")
            timing = await chain.run(PROMPT, NUM_TOKENS)
            gaps_ms = [(gap - timing.compute_s) / NUM_HOPS * 1000 for gap in timing.gaps_s]
            plain_ms = [each / NUM_HOPS * 1000 for each in await plain.run(NUM_TOKENS)]
            for share in ours:
                ours[share].append(quantile(gaps_ms, share))
                floor[share].append(quantile(plain_ms, share))
    p50, p99 = median(floor[0.5]), median(floor[0.99])
    return [
        at_most("hop_overhead_ms_p50", ours[0.5], "ms", 0.8, p50),
        at_most("hop_overhead_ms_p99", ours[0.99], "ms", max(3.0, 2 * p99), p99),
        figure("socket_ms_p50", floor[0.5], "ms"),
        figure("socket_ms_p99", floor[0.99], "ms"),
    ]


def quantile(values: Sequence[float], share: float) -> float:
    """The value that so many of all are not above."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _chunks(cache: Path) -> Iterator[Tensor]:
    """Prefill chunks as they leave the first two hops of three, at least 16 KiB each."""
    files = find_model(None, cache=cache)
    spec = read_spec(files.folder, files.name, files.fingerprint)
    rows = CHUNK_BYTES // (2 * spec.hidden_size)
    entry = torch.tensor(TextCodec.load(files.folder).encode(TEXT))
    edges = [index * spec.num_layers // NUM_HOPS for index in range(NUM_HOPS)]
    for start, stop in itertools.pairwise(edges):
        layers = LayerRange(start, stop)
        block = Block.load(files.folder, spec, layers, device="cpu", dtype="bfloat16")
        work = Work(cache=block.new_cache(len(entry)), position=0, entry=entry)
        with torch.inference_mode():
            entry = block.forward([work])[0]
        for at in range(0, len(entry) - rows + 1, rows):
            yield from_torch(entry[at : at + rows])


def _frame_bytes(chunk: Tensor, coding: str) -> int:
    """All that a chunk takes on a stream, prefixes and header included."""
    step = Step(session=bytes(16), layer=9, epoch=1, position=1000, entry=chunk)
    turns = FrameWriter(step, 1, lambda _: coding).turns()
    return sum(len(buffer) for buffers in turns for buffer in buffers)


def _speed(chunk: Tensor, coding: str) -> float:
    """Plain megabytes coded and decoded per second, one after the other."""
    began = time.perf_counter()
    recoded(chunk, coding)
    return chunk.num_bytes / (time.perf_counter() - began) / 1e6


@asynccontextmanager
async def _chain(folder: Path, thin: Path, note: Note) -> AsyncIterator[Chain]:
    """Three nodes with a layer each, and a client."""
    note(f"starting {NUM_HOPS} nodes")
    place = folder / "wire"
    place.mkdir()
    async with NodeProcesses(place, model=str(thin), environment=ONE_THREAD) as processes:
        for layer in range(NUM_LAYERS):
            join = processes.nodes[0].address if processes.nodes else ""
            await processes.serve(await processes.listen(LayerRange(layer, layer + 1), join))
        swarm = SwarmConfig(
            home=home(place), join=(processes.nodes[0].address,), starts_swarm=False
        )
        # Prompts are repeated, and each time all of them is to be computed.
        config = ClientConfig(swarm=swarm, cache=swarm.home.cache, keeps_prefixes=False)
        async with Client(config=config, model=str(thin)) as client:
            yield Chain(list(processes.nodes), client)
