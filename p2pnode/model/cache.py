"""A session's keys and values, and the two forms in which transformers' own forwards see them.

`Packed` serves several sessions in one forward and pairs with `attention.packed_attention`;
`Single` serves one session and returns what a family's own attention expects. Both write into
the same `KVCache`, so truncation, replay and accounting are the same for every family.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from transformers.cache_utils import Cache

from p2pnode.types import LayerRange

PAGE_TOKENS = 64
"""Buffers grow to multiples of this, at least doubling, so that appending costs O(1)."""


class KVCache:
    """Keys and values of one session for the layers of one block.

    Each layer has a buffer for keys and one for values, [1, kv_heads, capacity, head_dim];
    ``position`` tokens of them are valid. What lies beyond is overwritten by the next forward.
    """

    __slots__ = ("_buffers", "_first", "layers", "max_tokens", "position")

    def __init__(self, layers: LayerRange, max_tokens: int) -> None:
        self.layers = layers
        self.max_tokens = max_tokens
        self.position = 0
        self._first = layers.start
        self._buffers: list[tuple[torch.Tensor, torch.Tensor] | None] = [None] * len(layers)

    @property
    def num_bytes(self) -> int:
        """Bytes allocated so far; at most ``max_tokens`` times the block's bytes per token."""
        return sum(each.nbytes for pair in self._buffers if pair for each in pair)

    @property
    def is_whole(self) -> bool:
        """Whether every layer has put its keys and values here."""
        return all(pair is not None for pair in self._buffers)

    def truncate(self, position: int) -> None:
        """Forget the tokens from ``position`` on; ValueError("gap") when we hold fewer."""
        if not 0 <= position <= self.position:
            raise ValueError(f"gap: the cache holds {self.position} tokens, not {position}")
        self.position = position

    def append(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write a layer's new keys and values behind ``position``; returns views on all of them.

        layer: global index
        keys, values: [1, kv_heads, tokens, head_dim]
        returns: two views, [1, kv_heads, position + tokens, head_dim]
        """
        tokens = keys.shape[2]
        stop = self.position + tokens
        pair = self._buffers[layer - self._first]
        if pair is None or pair[0].shape[2] < stop:
            pair = self._grow(pair, keys, values, stop)
            self._buffers[layer - self._first] = pair
        held_keys, held_values = pair
        held_keys.narrow(2, self.position, tokens).copy_(keys)
        held_values.narrow(2, self.position, tokens).copy_(values)
        return held_keys.narrow(2, 0, stop), held_values.narrow(2, 0, stop)

    def _grow(
        self,
        pair: tuple[torch.Tensor, torch.Tensor] | None,
        keys: torch.Tensor,
        values: torch.Tensor,
        stop: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A layer's buffers with room for ``stop`` tokens."""
        old = 0 if pair is None else pair[0].shape[2]
        wanted = -(-max(stop, 2 * old) // PAGE_TOKENS) * PAGE_TOKENS
        capacity = max(stop, min(wanted, self.max_tokens))
        grown = []
        for index, new in enumerate((keys, values)):
            batch, heads, _, size = new.shape
            buffer = new.new_empty((batch, heads, capacity, size))
            if pair is not None:
                held = pair[index].narrow(2, 0, self.position)
                buffer.narrow(2, 0, self.position).copy_(held)
            grown.append(buffer)
        return grown[0], grown[1]


class Packed(Cache):
    """Several sessions, concatenated in one row; our attention keeps them apart.

    ``views`` are the last appended layer's keys and values, one pair per session; each layer's
    attention runs right after its `update`, so one layer's views are all that must be held.
    """

    is_compileable = False
    is_sliding: ClassVar[list[bool]] = [False]

    def __init__(self, caches: Sequence[KVCache], lengths: Sequence[int]) -> None:
        self.caches = caches
        self.lengths = lengths
        self.layers: list[Any] = []
        self.layer_class_to_replicate = None
        self.offloading = False
        self.views: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.masks: dict[tuple[int, int, int], torch.Tensor] = {}
        self.attended = 0

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append each session's part, [1, kv_heads, all tokens, head_dim]; returned unchanged."""
        if len(self.caches) == 1:
            self.views = [self.caches[0].append(layer_idx, key_states, value_states)]
            return key_states, value_states
        self.views = []
        parts = zip(
            self.caches,
            key_states.split(list(self.lengths), 2),
            value_states.split(list(self.lengths), 2),
            strict=True,
        )
        for cache, keys, values in parts:
            self.views.append(cache.append(layer_idx, keys, values))
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions are given per token, so the row itself has no past."""
        return 0

    def get_mask_sizes(self, *_: Any, **__: Any) -> tuple[int, int]:
        """The row attends to itself only, as far as transformers' mask code knows."""
        return sum(self.lengths), 0


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
    ) -> tuple[torch.Tensor, torch.Tensor]:
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
