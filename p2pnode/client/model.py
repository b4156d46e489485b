"""The client's part of a model: tokenizer, figures, and (with a local head) its two ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from p2pnode.errors import BadRequest, NoChain, UnknownModel
from p2pnode.model.block import Block
from p2pnode.model.loader import read_spec
from p2pnode.model.sampler import sample
from p2pnode.model.source import ModelFiles, find_model
from p2pnode.model.tensor import from_torch, to_torch
from p2pnode.model.text import TextCodec
from p2pnode.swarm.model import only_model
from p2pnode.swarm.view import SwarmReader
from p2pnode.types import LayerRange, ModelSpec, Sampling, SwarmView, Tensor


@dataclass(frozen=True, slots=True)
class ClientModel:
    """A model as the client sees it."""

    spec: ModelSpec
    codec: TextCodec
    ends: LocalEnds | None

    def encode(self, prompt: str | Sequence[int] | Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a prompt; raises BadRequest."""
        if isinstance(prompt, str):
            return self.codec.encode(prompt) if prompt else []
        if all(isinstance(each, int) for each in prompt):
            ids = [each for each in prompt if isinstance(each, int)]
            if not all(0 <= token_id < self.spec.vocab_size for token_id in ids):
                raise BadRequest(f"token ids must be 0 to {self.spec.vocab_size - 1}")
            return ids
        messages = [each for each in prompt if isinstance(each, Mapping)]
        if len(messages) != len(prompt):
            raise BadRequest("a prompt is a text, token ids, or chat messages; not a mixture")
        return self.codec.encode_chat(messages)


class LocalEnds:
    """Embedding, head and sampling on this machine (`Ends`), on one thread."""

    def __init__(self, block: Block) -> None:
        self._block = block
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ends")

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


async def find_client_model(
    reader: SwarmReader, model: str | None, cache: Path, *, with_ends: bool
) -> ClientModel:
    """The model to use: the one asked for, or the only one of the swarm, or the built-in one.

    Raises SeveralModels, UnknownModel, ModelFilesError, and NoChain when nobody serves it.
    """
    view = await reader.view(max_age_s=0.0)
    name = model or only_model(view)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, _load, name, view, cache, with_ends)


def _load(name: str | None, view: SwarmView, cache: Path, with_ends: bool) -> ClientModel:
    files = _files(name, cache, with_ends)
    if not view.of_model(files.fingerprint).announcements:
        served = sorted({f"{a.model} ({a.fingerprint[:8]})" for a in view.announcements})
        there = f"the swarm serves {', '.join(served)}" if served else "the swarm serves no model"
        wanted = f"{files.name} ({files.fingerprint[:8]})"
        raise NoChain(f"nobody serves {wanted}; {there}. Start: p2pnode serve --layers FIRST-LAST")
    spec = read_spec(files.folder, files.name, files.fingerprint)
    codec = TextCodec.load(files.folder)
    ends = None
    if with_ends:
        numerics = view.of_model(files.fingerprint).announcements[0].numerics
        dtype = numerics.partition("+")[0]
        block = Block.load(files.folder, spec, LayerRange(0, 0), device="cpu", dtype=dtype)
        ends = LocalEnds(block)
    return ClientModel(spec, codec, ends)


def _files(name: str | None, cache: Path, with_ends: bool) -> ModelFiles:
    """Our copy of a model's files; without a name the built-in ones."""
    builtin = find_model(None, cache=cache)
    if name in (None, builtin.name):
        return builtin
    try:
        return find_model(name, cache=cache, layers=LayerRange(0, 0), with_ends=with_ends)
    except UnknownModel as error:
        raise UnknownModel(f"{error}. Give its folder or hub id with --model") from error
