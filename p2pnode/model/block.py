"""A contiguous part of a model's layers, run by the family's own code.

Stateless between forwards except for the sessions' caches, which the caller keeps. Every method
that computes runs on one thread (`serving.worker`), never on the event loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from p2pnode.errors import ModelUnsupported
from p2pnode.model.cache import KVCache, Probe, Single
from p2pnode.model.families import CODE_ERRORS
from p2pnode.model.linear import OnBytes, speed_up
from p2pnode.model.loader import Form, load_tensors
from p2pnode.model.packed import Packed, arranged
from p2pnode.model.parts import Parts, fill
from p2pnode.model.pool import KVPool, Layout, Widths
from p2pnode.model.quant import Quantisation
from p2pnode.model.skeleton import Skeleton, build
from p2pnode.model.spec import read_config
from p2pnode.model.tensor import TORCH_DTYPES, is_finite
from p2pnode.sizes import owned_ends
from p2pnode.types import LayerRange, ModelSpec


@dataclass(slots=True)
class Work:
    """One session's part of one forward."""

    cache: KVCache
    position: int
    """Tokens already in the cache; `Block.forward` truncates it to this."""
    entry: torch.Tensor
    """Token ids, int64 [tokens] (only for a block that embeds), or hidden [tokens, hidden_size]."""
    is_finite: bool = True
    """Whether all that `Block.forward` made of it is."""


class Block:
    """Some layers of a model, and the ends (embedding; norm and head) where they are ours."""

    def __init__(
        self, parts: Parts, spec: ModelSpec, layers: LayerRange, *, device: str, dtype: str
    ) -> None:
        self.spec = spec
        self.layers = layers
        self.device = device
        self.dtype = dtype
        self.quant = ""
        """How its weights are quantised, one of `numerics.QUANTS`; empty: they are in the dtype."""
        self.packs = True
        """Several sessions go through one forward; else one by one."""
        self.folder: Path | None = None
        """Where the model's files are."""
        self.num_bytes = 0
        """Bytes of our own tensors in memory."""
        self.bytes_read = 0
        """Tensor bytes that loading has read from the files."""
        self.header_bytes = 0
        """Bytes of file headers that loading has read."""
        self.kv_bytes_per_token = 0
        """What one token costs in a cache, all our layers together."""
        self._parts = parts
        self._pool = KVPool(Layout((), TORCH_DTYPES[dtype], device))
        self._skeleton: Skeleton | None = None
        self._ranges: dict[LayerRange, Block] = {}

    @classmethod
    def load(
        cls,
        folder: Path,
        spec: ModelSpec,
        layers: LayerRange,
        *,
        device: str,
        dtype: str,
        ends: bool = True,
        quant: str = "",
        progress: OnBytes = lambda done, total: None,
        arranging: OnBytes = lambda done, total: None,
    ) -> Block:
        """Read our tensors, and only them, into a block.

        layers: may be empty (0-0) with ``ends``: the client's part for a local head
        ends: take the embedding with layer 0, and norm and head with the last layer
        quant: quantise the weights of the layers so, one of `numerics.QUANTS`; the ends never are
        progress, arranging: told bytes read, and laid out for products, and how many there are
        Raises ModelFilesError, ModelUnsupported, LocalError (without the library that quantises).
        """
        config = read_config(folder)
        kind = TORCH_DTYPES[dtype]
        embeds, has_head = owned_ends(spec.num_layers, layers, ends=ends)
        skeleton = build(config, kind, packs=True)
        wanted = skeleton.wanted(layers, embeds=embeds, has_head=has_head)
        quantisation = Quantisation.of(skeleton, wanted, kind, quant) if quant else None
        form = Form(kind, device, quantisation.quantise if quantisation else None)
        loaded = load_tensors(folder, skeleton.model, wanted, form, progress)

        def assemble(skeleton: Skeleton, *, packs: bool) -> Block:
            fill(skeleton.model, loaded.tensors)
            if quantisation:
                quantisation.install(skeleton.model)
            parts = Parts(skeleton, layers, embeds=embeds, has_head=has_head, device=device)
            block = cls(parts, spec, layers, device=device, dtype=dtype)
            block.packs, block.quant = packs, quant
            block._skeleton, block.folder = skeleton, folder
            return block

        block = assemble(skeleton, packs=True)
        if not block._try_one_token():
            skeleton = build(config, kind, packs=False)
            block = assemble(skeleton, packs=False)
            if not block._try_one_token():
                what = f"{spec.family} keeps state that is not keys and values"
                or_not = f", or does not run with {quant} weights" if quant else ""
                raise ModelUnsupported(what + or_not)
        block.num_bytes = sum(each.nbytes for each in loaded.tensors.values())
        block.bytes_read, block.header_bytes = loaded.bytes_read, loaded.header_bytes
        loaded.tensors.clear()  # what is laid out anew is not kept as it was
        speed_up(skeleton.model, block._try_one_token, arranging)
        return block

    @property
    def embeds(self) -> bool:
        """Whether it takes token ids."""
        return self._parts.entry is not None

    @property
    def has_head(self) -> bool:
        """Whether it makes logits."""
        return self._parts.head is not None

    def part(self, layers: LayerRange) -> Block:
        """A block of some of our layers over the same tensors; the same object each time.

        Raises ValueError for layers that are not ours.
        """
        if layers == self.layers:
            return self
        if not self.layers.covers(layers) or self._skeleton is None:
            raise ValueError(f"layers {layers} are not among {self.layers}")
        if layers not in self._ranges:
            parts = Parts(
                self._skeleton,
                layers,
                embeds=self.embeds and layers.start == 0,
                has_head=self.has_head and layers.stop == self.spec.num_layers,
                device=self.device,
            )
            part = type(self)(parts, self.spec, layers, device=self.device, dtype=self.dtype)
            part.packs, part.quant, part.folder = self.packs, self.quant, self.folder
            part._skeleton = self._skeleton
            first = layers.start - self.layers.start
            part._keep(self._pool.layout.layers[first : first + len(layers)])
            self._ranges[layers] = part
        return self._ranges[layers]

    def new_cache(self, max_tokens: int) -> KVCache:
        """An empty cache for a session of at most ``max_tokens`` tokens, filled as it grows.

        Raises MemoryError when the system has no room for it.
        """
        return KVCache(self.layers, max_tokens, self._pool)

    @torch.inference_mode()
    def embed(self, token_ids: torch.Tensor, position: int) -> torch.Tensor:
        """What layer 0 receives, scale and learned positions included.

        token_ids: int64 [tokens]; position: that of the first of them
        returns: [tokens, hidden_size]
        """
        return self._enter(token_ids, self._positions(position, len(token_ids)))[0]

    def embed_ids(self, token_ids: Sequence[int], position: int) -> torch.Tensor:
        """`embed` for those who do without torch."""
        return self.embed(torch.tensor(token_ids, dtype=torch.int64), position)

    @torch.inference_mode()
    def forward(self, work: Sequence[Work]) -> list[torch.Tensor]:
        """Run our layers on the new tokens of one or more sessions, each with its own cache.

        returns: for each, [tokens, hidden_size], raw output of our last layer
        Raises ValueError: "gap" when a cache holds fewer tokens than the work's position, or when
        the tokens exceed the cache; caches may have been truncated then, and nothing else.
        """
        for part in work:
            part.cache.truncate(part.position)
            if part.position + len(part.entry) > part.cache.max_tokens:
                raise ValueError(f"the cache has room for {part.cache.max_tokens} tokens")
        if self.packs:
            outs, all_finite = self._forward_packed(work)
        else:
            outs, all_finite = [self._forward_single(part) for part in work], False
        for part, out in zip(work, outs, strict=True):
            part.cache.advance(len(part.entry))
            part.is_finite = all_finite or is_finite(out)
            if not part.is_finite:
                part.cache.scrub(part.position)
        return outs

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Final norm, head, and what the family does to logits.

        hidden: [tokens, hidden_size], raw output of the last layer
        returns: float32 [tokens, vocab_size]
        """
        return self._parts.logits(hidden.to(self.device)[None])[0]

    @torch.inference_mode()
    def logits_of(self, parts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """`logits` of several sessions, reading the head's weights once; one tensor for each."""
        if len(parts) < 2:
            return [self.logits(part) for part in parts]
        return list(self.logits(torch.cat(list(parts))).split([len(part) for part in parts]))

    @torch.inference_mode()
    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """Final norm alone: what the whole model calls its last hidden states.

        hidden: [tokens, hidden_size], raw output of the last layer
        returns: float32, same shape
        """
        return self._parts.normed(hidden.to(self.device)[None])[0]

    def _forward_packed(self, work: Sequence[Work]) -> tuple[list[torch.Tensor], bool]:
        """One forward over the concatenated new tokens of all sessions; whether all is finite."""
        order = arranged([part.cache for part in work], [len(part.entry) for part in work])
        placed = [work[index] for index in order]
        lengths = [len(part.entry) for part in placed]
        packed = Packed([part.cache for part in placed], lengths)
        row, where = self._row(placed)
        out = self._parts.run(row, where, packed, packed=packed)[0]
        if packed.attended != len(self.layers):
            raise ValueError(f"{self.spec.family} does not call the attention interface")
        all_finite = is_finite(out)
        if len(work) == 1:
            return [out], all_finite
        outs = dict(zip(order, out.split(lengths), strict=True))
        return [outs[index] for index in range(len(work))], all_finite

    def _row(self, work: Sequence[Work]) -> tuple[torch.Tensor, torch.Tensor]:
        """New tokens of all sessions, [1, tokens, hidden_size], and their positions."""
        if len(work) == 1:
            positions = self._positions(work[0].position, len(work[0].entry))
            return self._enter(work[0].entry, positions), positions
        numbers = [
            p for part in work for p in range(part.position, part.position + len(part.entry))
        ]
        positions = torch.tensor(numbers, device=self.device)[None]
        if len({part.entry.is_floating_point() for part in work}) == 1:
            return self._enter(torch.cat([part.entry for part in work]), positions), positions
        split = positions.split([len(part.entry) for part in work], 1)
        entries = [self._enter(part.entry, own) for part, own in zip(work, split, strict=True)]
        return torch.cat(entries, 1), positions

    def _forward_single(self, part: Work) -> torch.Tensor:
        """One session through the family's own attention."""
        positions = self._positions(part.position, len(part.entry))
        hidden = self._enter(part.entry, positions)
        return self._parts.run(hidden, positions, Single(part.cache))[0]

    def _enter(self, entry: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """[1, tokens, hidden_size] from token ids or hidden."""
        entry = entry.to(self.device)[None]
        return entry if entry.is_floating_point() else self._parts.embed(entry, positions)

    def _positions(self, position: int, tokens: int) -> torch.Tensor:
        return torch.arange(position, position + tokens, device=self.device)[None]

    def _try_one_token(self) -> bool:
        """Whether a token gets through all our parts as `packs` says; also warms the code up."""
        if not self.layers:
            return True
        cache = Probe(self.layers)
        entry = torch.zeros(
            (1, self.spec.hidden_size), dtype=TORCH_DTYPES[self.dtype], device=self.device
        )
        work = Work(cache=cache, position=0, entry=entry)
        try:
            self.forward([work])
            if self.has_head:
                self.logits(entry)
        except CODE_ERRORS:
            return False
        if len(cache.widths) != len(self.layers):
            return False
        self._keep(tuple(cache.widths[layer] for layer in self.layers))
        return True

    def _keep(self, widths: tuple[Widths, ...]) -> None:
        """Sessions keep so much per token."""
        self._pool = KVPool(Layout(widths, TORCH_DTYPES[self.dtype], self.device))
        self.kv_bytes_per_token = self._pool.layout.bytes_per_token
