"""Embedding, norm, head and sampling on this machine, for a client that keeps the token ids."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from p2pnode.model.block import Block
from p2pnode.model.chooser import Chooser
from p2pnode.model.tensor import from_torch, to_torch
from p2pnode.numerics import Numerics
from p2pnode.types import Chosen, LayerRange, ModelSpec, Tensor


class LocalEnds:
    """Embedding, head and sampling on this machine, for all sessions on one thread."""

    def __init__(self, block: Block) -> None:
        self._block = block
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ends")

    @classmethod
    def load(cls, folder: Path, spec: ModelSpec, numerics: str) -> Self:
        """Read embedding, norm and head; raises ModelFilesError, ModelUnsupported."""
        dtype = Numerics.parse(numerics).dtype
        return cls(Block.load(folder, spec, LayerRange(0, 0), device="cpu", dtype=dtype))

    def of(self, chooser: Chooser) -> SessionEnds:
        """For one session."""
        return SessionEnds(self._block, self._thread, chooser)


class SessionEnds:
    """Those of one session (`Ends`)."""

    def __init__(self, block: Block, thread: ThreadPoolExecutor, chooser: Chooser) -> None:
        self._block = block
        self._thread = thread
        self._chooser = chooser

    async def embed(self, token_ids: list[int], position: int) -> Tensor:
        """See `Ends.embed`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._embed, token_ids, position)

    async def choose(self, hidden: Tensor, token_ids: list[int]) -> Chosen:
        """See `Ends.choose`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._choose, hidden, token_ids)

    def _embed(self, token_ids: list[int], position: int) -> Tensor:
        return from_torch(self._block.embed_ids(token_ids, position))

    def _choose(self, hidden: Tensor, token_ids: list[int]) -> Chosen:
        logits = self._block.logits(to_torch(hidden, self._block.device)[-1:])
        return self._chooser.choose(logits[0], position=len(token_ids), token_ids=token_ids)
