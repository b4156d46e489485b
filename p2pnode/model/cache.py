"""A session's keys and values, and how transformers' own forwards see those of one session.

`packed.Packed` serves several sessions in one forward; `Single` serves one session and returns
what a family's own attention expects. Both write into the same `KVCache`, so truncation, replay
and accounting are the same for every family.
"""

from __future__ import annotations

import weakref
from typing import Any, ClassVar

import torch
from transformers.cache_utils import Cache

from p2pnode.model.pool import KVPool, Widths, whole_pages
from p2pnode.types import LayerRange

KeysValues = tuple[torch.Tensor, torch.Tensor]


class KVCache:
    """Keys and values of one session for the layers of one block, in a slot of the block's pool.

    ``position`` tokens are valid. What lies beyond is overwritten by the next forward. The memory
    goes back to the pool with the last reference to the cache.
    """

    __slots__ = (
        "__weakref__",
        "_reached",
        "layers",
        "max_tokens",
        "pool",
        "position",
        "slab",
        "slot",
    )

    def __init__(self, layers: LayerRange, max_tokens: int, pool: KVPool) -> None:
        """Raises MemoryError when there is no room for ``max_tokens``."""
        self.layers = layers
        self.max_tokens = max_tokens
        self.position = 0
        self.pool = pool
        self._reached = 0
        self.slab, self.slot = pool.take(max_tokens)
        giving = weakref.finalize(self, pool.give_back, self.slab, self.slot)
        giving.atexit = False

    @property
    def num_bytes(self) -> int:
        """Bytes of the pages that hold tokens, or did; at most `reserved_bytes`."""
        tokens = min(whole_pages(self._reached), self.max_tokens)
        return tokens * self.pool.layout.bytes_per_token

    @property
    def reserved_bytes(self) -> int:
        """The most bytes that it may ever take."""
        return self.max_tokens * self.pool.layout.bytes_per_token

    def truncate(self, position: int) -> None:
        """Forget the tokens from ``position`` on; ValueError("gap") when we hold fewer."""
        if not 0 <= position <= self.position:
            raise ValueError(f"gap: the cache holds {self.position} tokens, not {position}")
        self.position = position

    def copy_from(self, other: KVCache, num_tokens: int) -> None:
        """Begin with the first tokens of another session of the same layers."""
        for ours, theirs in zip(
            (*self.slab.keys, *self.slab.values),
            (*other.slab.keys, *other.slab.values),
            strict=True,
        ):
            ours[self.slot, :, :num_tokens].copy_(theirs[other.slot, :, :num_tokens])
        self.position = 0
        self.advance(num_tokens)

    def advance(self, tokens: int) -> None:
        """All layers have appended so many tokens."""
        self.position += tokens
        self._reached = max(self._reached, self.position)

    def scrub(self, position: int) -> None:
        """Overwrite what lies at ``position`` and beyond: values that are not finite were there.

        Sessions that are attended to together are padded, and 0 times NaN is NaN.
        """
        stop = min(self.max_tokens, max(self._reached, self.position))
        for tensor in (*self.slab.keys, *self.slab.values):
            tensor[self.slot, :, position:stop].zero_()
        self.position = min(self.position, position)

    def append(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> KeysValues:
        """Write a layer's new keys and values behind ``position``; returns views on all of them.

        layer: global index
        keys, values: [1, kv_heads, tokens, head_dim]
        returns: two views, [1, kv_heads, position + tokens, head_dim]
        """
        index, tokens = layer - self.layers.start, keys.shape[2]
        stop = self.position + tokens
        held_keys = self.slab.keys[index].narrow(0, self.slot, 1).narrow(2, 0, stop)
        held_values = self.slab.values[index].narrow(0, self.slot, 1).narrow(2, 0, stop)
        held_keys.narrow(2, self.position, tokens).copy_(keys)
        held_values.narrow(2, self.position, tokens).copy_(values)
        return held_keys, held_values


class Probe(KVCache):
    """Stands for a cache in the forward that finds out what a block's layers keep."""

    __slots__ = ("widths",)

    def __init__(self, layers: LayerRange) -> None:
        self.layers = layers
        self.max_tokens = 1
        self.position = self._reached = 0
        self.widths: dict[int, Widths] = {}

    def append(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> KeysValues:
        """Note the shapes; returns the same tensors."""
        self.widths[layer] = Widths(keys.shape[1], keys.shape[3], values.shape[3])
        return keys, values


class Single(Cache):
    """One session, for families whose own attention must run; they need no mask of ours."""

    is_compileable = False
    is_sliding: ClassVar[list[bool]] = [False]

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self.layers: list[Any] = []
        self.layer_class_to_replicate = None
        self.offloading = False

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> KeysValues:
        """Append and return all keys and values, [1, kv_heads, position + tokens, head_dim]."""
        return self.cache.append(layer_idx, key_states, value_states)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens held before this forward."""
        return self.cache.position

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Position of the first new token."""
        return self.cache.position

    def get_mask_sizes(self, query_length: int, *_: Any, **__: Any) -> tuple[int, int]:
        """(keys to attend to, their offset)."""
        return self.cache.position + query_length, 0
