"""Embedding, norm, head and sampling on this machine, for a client that keeps the token ids."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from p2pnode.model.block import Block
from p2pnode.model.sampler import sample
from p2pnode.model.tensor import from_torch, to_torch
from p2pnode.numerics import Numerics
from p2pnode.types import LayerRange, ModelSpec, Sampling, Tensor


class LocalEnds:
    """Embedding, head and sampling on this machine (`Ends`), on one thread."""

    def __init__(self, block: Block) -> None:
        self._block = block
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ends")

    @classmethod
    def load(cls, folder: Path, spec: ModelSpec, numerics: str) -> Self:
        """Read embedding, norm and head; raises ModelFilesError, ModelUnsupported."""
        dtype = Numerics.parse(numerics).dtype
        return cls(Block.load(folder, spec, LayerRange(0, 0), device="cpu", dtype=dtype))

    async def embed(self, token_ids: list[int], position: int) -> Tensor:
        """[tokens] -> hidden [tokens, hidden_size]."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._embed, token_ids, position)

    async def choose(self, hidden: Tensor, sampling: Sampling, token_ids: list[int]) -> int:
        """The token that follows ``token_ids``, from the last row of hidden."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._choose, hidden, sampling, token_ids)

    def _embed(self, token_ids: list[int], position: int) -> Tensor:
        return from_torch(self._block.embed_ids(token_ids, position))

    def _choose(self, hidden: Tensor, sampling: Sampling, token_ids: list[int]) -> int:
        logits = self._block.logits(to_torch(hidden, self._block.device)[-1:])
        return sample(logits[0], sampling, position=len(token_ids), token_ids=token_ids)
