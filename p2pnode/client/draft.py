"""A small model on this machine that guesses what the chain will answer.

It samples with the session's own noise, so where the two models agree on the probabilities they
agree on the token (the coupling of counter-based sampling).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from p2pnode.errors import BadRequest, ComputeFailed
from p2pnode.model.block import Block, Work
from p2pnode.model.cache import KVCache
from p2pnode.model.chooser import Chooser
from p2pnode.model.spec import read_spec
from p2pnode.model.tensor import to_torch
from p2pnode.pipeline.configure import int64
from p2pnode.types import LayerRange, ModelSpec


class DraftModel:
    """A whole model, shared by all sessions of a client. ``async with`` owns its thread."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="draft")

    @classmethod
    def load(cls, folder: Path, target: ModelSpec) -> Self:
        """Read it; raises ModelFilesError, ModelUnsupported, and BadRequest for other tokens."""
        spec = read_spec(folder, folder.name, "")
        if spec.vocab_size != target.vocab_size:
            what = f"the draft {folder.name} has {spec.vocab_size} tokens"
            raise BadRequest(f"{what}, {target.name} has {target.vocab_size}: choose another draft")
        layers = LayerRange(0, spec.num_layers)
        return cls(Block.load(folder, spec, layers, device="cpu", dtype="float32"))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.thread.shutdown(wait=False, cancel_futures=True)

    def drafter(self, chooser: Chooser) -> ModelDrafter:
        """For one session, whose tokens would be chosen so."""
        return ModelDrafter(self, chooser)


class ModelDrafter:
    """Guesses for one session (`Drafter`); keeps the keys and values of what it has read."""

    def __init__(self, model: DraftModel, chooser: Chooser) -> None:
        self._model = model
        self._chooser = chooser
        self._max_tokens = model.block.spec.max_positions
        self._cache: KVCache | None = None
        self._read: list[int] = []
        self._num_known = 0
        self._newest = 0
        """The latest call; an older one ends with the token that it is at."""

    async def draft(self, known: Sequence[int], guesses: Sequence[int], num: int) -> list[int]:
        """See `Drafter.draft`; none beyond the draft's own length."""
        line = [*known, *guesses]
        if len(line) + num > self._max_tokens:
            return []
        self._newest += 1
        loop, work = asyncio.get_running_loop(), (line, len(known), num, self._newest)
        return await loop.run_in_executor(self._model.thread, self._run, *work)

    def _same(self, line: list[int], num_known: int) -> int:
        """How many tokens of the line are read already, less one: its output is needed."""
        same = min(self._num_known, len(self._read))
        self._num_known = num_known
        limit = min(len(self._read), len(line) - 1)
        while same < limit and self._read[same] == line[same]:
            same += 1
        return min(same, limit)

    def _run(self, line: list[int], num_known: int, num: int, call: int) -> list[int]:
        """On the thread, where calls follow each other."""
        same = self._same(line, num_known)
        block, made = self._model.block, []
        if self._cache is None:
            self._cache = block.new_cache(self._max_tokens)
        same = min(same, self._cache.position)
        for _ in range(num):
            if call != self._newest:
                break
            work = Work(cache=self._cache, position=same, entry=to_torch(int64(line[same:])))
            (hidden,) = block.forward([work])
            same = len(line)
            row = block.logits(hidden[-1:])[0]
            try:
                chosen = self._chooser.choose(row, position=len(line), token_ids=line)
            except ComputeFailed:  # it is no worse than to have no guess
                break
            line.append(chosen.token_id)
            made.append(chosen.token_id)
        self._read = line[:same]
        return made
