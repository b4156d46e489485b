"""`p2pnode bench wire`: what hidden states take on the wire.

``lossless``, ``int8``: bytes of all frames of prefill chunks (16 KiB and more in bfloat16) of the
built-in model's hidden states, where a chain of three cuts it, over the plain bytes. What a hop
costs beside its compute is in `p2pnode bench loopback`.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from p2pnode.bench.chains import Note
from p2pnode.bench.models import HIDDEN_SIZE
from p2pnode.bench.result import Row, at_most, figure, result
from p2pnode.model.accuracy import TEXT
from p2pnode.model.block import Block, Work
from p2pnode.model.source import find_model
from p2pnode.model.spec import read_spec
from p2pnode.model.tensor import from_torch
from p2pnode.model.text import TextCodec
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
    """All rows of the table; takes some seconds."""
    with tempfile.TemporaryDirectory(prefix="p2pnode-bench-") as name:
        folder = Path(name)
        note("coding hidden states of the built-in model")
        rows = await asyncio.to_thread(coding_rows, folder)
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
