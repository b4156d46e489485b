"""Several sessions in one forward: who lies beside whom in the row, who is attended to at once.

Decode steps and verify windows of sessions of about the same length are one group: their keys are
written, and read, as one strided tensor of the pool (`pool.Slab`), so that what Python does per
layer does not grow with the sessions. Longer pieces are attended to one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from transformers.cache_utils import Cache

from p2pnode.model.cache import KeysValues, KVCache

TOGETHER_TOKENS = 16
"""Sessions with so few new tokens each, and equally many, are attended to in one call."""


class Group:
    """Sessions that lie next to each other in the row and are attended to in one call.

    Of several sessions the slots rise at equal distances, and the new tokens are equally many.
    """

    __slots__ = (
        "_slots", "_where", "caches", "first", "firsts", "is_level", "masks", "start", "tokens",
        "total",
    )  # fmt: skip

    def __init__(self, caches: list[KVCache], start: int, tokens: int) -> None:
        self.caches = caches
        self.start = start
        """Place of its first token in the row."""
        self.tokens = tokens
        """New ones, of each session."""
        self.firsts = [cache.position for cache in caches]
        """Position of each session's first new token."""
        self.first = min(self.firsts)
        self.total = max(self.firsts) + tokens
        """Tokens of the longest session, the new ones included."""
        self.is_level = self.first + tokens == self.total
        """Whether all sessions are equally long."""
        self.masks: dict[int | None, torch.Tensor] = {}
        """By sliding window, made once per forward."""
        self._where: tuple[torch.Tensor, torch.Tensor] | None = None
        if len(caches) > 1:
            slots = [cache.slot for cache in caches]
            self._slots = slice(slots[0], slots[-1] + 1, slots[1] - slots[0])
            positions = torch.tensor(self.firsts)[:, None] + torch.arange(tokens)
            self._where = torch.tensor(slots).repeat_interleave(tokens), positions.flatten()

    def append(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> KeysValues:
        """Write the group's part of a row and return all of its keys and values.

        keys, values: [1, kv_heads, sessions * tokens, head_dim]
        returns: two views, [sessions, kv_heads, total, head_dim]; what lies beyond the end of a
            shorter session is finite
        """
        if self._where is None:
            return self.caches[0].append(layer, keys, values)
        slab = self.caches[0].slab
        index = layer - self.caches[0].layers.start
        held_keys, held_values = slab.keys[index], slab.values[index]
        held_keys.transpose(1, 2).index_put_(self._where, keys[0].transpose(0, 1))
        held_values.transpose(1, 2).index_put_(self._where, values[0].transpose(0, 1))
        return (
            held_keys[self._slots].narrow(2, 0, self.total),
            held_values[self._slots].narrow(2, 0, self.total),
        )


def arranged(caches: Sequence[KVCache], lengths: Sequence[int]) -> list[int]:
    """The order of sessions in a row in which most of them can be grouped."""
    if len(caches) == 1:
        return [0]
    keys = [_kin(cache, length) for cache, length in zip(caches, lengths, strict=True)]
    return sorted(range(len(caches)), key=lambda i: (*keys[i], caches[i].slot))


def _kin(cache: KVCache, length: int) -> tuple[int, int, int]:
    """Sessions may be grouped when this is equal: slab, new tokens, about the same length."""
    return id(cache.slab), length, (cache.position + length) // cache.pool.padding_tokens


def grouped(caches: Sequence[KVCache], lengths: Sequence[int]) -> list[Group]:
    """Consecutive sessions in as few groups as their slots allow."""
    groups: list[Group] = []
    start = 0
    places = zip(caches, lengths, strict=True)
    kin = (lambda place: _kin(*place)) if len(caches) > 1 else (lambda place: (0, place[1], 0))
    for (_, length, _), same in itertools.groupby(places, key=kin):
        left = [cache for cache, _ in same]
        while left:
            count = _num_equidistant(left) if length <= TOGETHER_TOKENS else 1
            groups.append(Group(left[:count], start, length))
            start += count * length
            left = left[count:]
    return groups


def _num_equidistant(caches: Sequence[KVCache]) -> int:
    """How many of the first ones have slots at equal distances, rising; at least one."""
    if len(caches) < 3:
        return len(caches)
    step = caches[1].slot - caches[0].slot
    count = 2
    while count < len(caches) and caches[count].slot - caches[count - 1].slot == step:
        count += 1
    return count


class Packed(Cache):
    """Several sessions, concatenated in one row; our attention keeps them apart.

    ``views`` are the last appended layer's keys and values, one pair per group; each layer's
    attention runs right after its `update`, so one layer's views are all that must be held.
    """

    is_compileable = False
    is_sliding: ClassVar[list[bool]] = [False]

    def __init__(self, caches: Sequence[KVCache], lengths: Sequence[int]) -> None:
        self.groups = grouped(caches, lengths)
        self.num_tokens = sum(lengths)
        self.layers: list[Any] = []
        self.layer_class_to_replicate = None
        self.offloading = False
        self.views: list[KeysValues] = []
        self.attended = 0

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> KeysValues:
        """Append each group's part, [1, kv_heads, all tokens, head_dim]; returned unchanged."""
        if len(self.groups) == 1:
            self.views = [self.groups[0].append(layer_idx, key_states, value_states)]
            return key_states, value_states
        self.views = []
        for group in self.groups:
            count = len(group.caches) * group.tokens
            keys = key_states.narrow(2, group.start, count)
            values = value_states.narrow(2, group.start, count)
            self.views.append(group.append(layer_idx, keys, values))
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions are given per token, so the row itself has no past."""
        return 0

    def get_mask_sizes(self, *_: Any, **__: Any) -> tuple[int, int]:
        """The row attends to itself only, as far as transformers' mask code knows."""
        return self.num_tokens, 0
