"""Memory for the keys and values of a block's sessions: reserved whole, filled as it is touched.

The processor's own page table does what other engines' block tables do (as in Prabhu et al.,
"vAttention", 2024): a session's keys of one layer lie in one contiguous range of addresses from
the first token to its last possible one, so growing copies nothing and attention reads them
without a gather. What has not been touched costs no memory on a Linux CPU; elsewhere a session's
range is allocated at once, which admission has counted anyway.

Sessions of similar size lie in slots of one slab, equally far apart: those that decode together
are then one strided tensor, [sessions, kv_heads, tokens, head_dim], whoever they are.
"""

from __future__ import annotations

import contextlib
import heapq
import mmap
import sys
from dataclasses import dataclass

import torch

PAGE_TOKENS = 64
"""Ranges are multiples of this; admission counts in it."""
SYSTEM_PAGE_BYTES = 4096
SLOTS = 16
"""Sessions per slab, where untouched memory is free."""
PADDING_ELEMENTS = 1 << 17
"""One more call of attention takes as long as reading so many keys and values of a layer."""
MAP_NORESERVE = 0x4000
"""Linux: do not count untouched addresses against what the system may promise."""


@dataclass(frozen=True, slots=True)
class Widths:
    """What one layer keeps per token: [kv_heads, key_size] keys, [kv_heads, value_size] values."""

    kv_heads: int
    key_size: int
    value_size: int

    @property
    def num_elements(self) -> int:
        """Of keys and values together."""
        return self.kv_heads * (self.key_size + self.value_size)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a block's layers keep per token."""

    layers: tuple[Widths, ...]
    dtype: torch.dtype
    device: str

    @property
    def bytes_per_token(self) -> int:
        """All layers together."""
        return sum(each.num_elements for each in self.layers) * self.dtype.itemsize


def whole_pages(num_tokens: int) -> int:
    """So many tokens, rounded up to pages."""
    return -(-num_tokens // PAGE_TOKENS) * PAGE_TOKENS


class Slab:
    """Equal slots for sessions of at most ``capacity`` tokens, each.

    ``keys`` and ``values`` have one tensor per layer: [slots, kv_heads, capacity, size].
    """

    __slots__ = ("_free", "_map", "_slot_bytes", "capacity", "keys", "num_slots", "values")

    def __init__(self, layout: Layout, capacity: int, num_slots: int) -> None:
        """Raises MemoryError when there are no addresses (or, beyond CPUs, no memory) for it."""
        self.capacity = capacity
        self.num_slots = num_slots
        size = layout.dtype.itemsize
        pages = -(-layout.bytes_per_token * capacity // SYSTEM_PAGE_BYTES)
        self._slot_bytes = max(1, pages) * SYSTEM_PAGE_BYTES
        self._free = list(range(num_slots))
        self._map = _reserve(self._slot_bytes * num_slots) if layout.device == "cpu" else None
        num_elements = self._slot_bytes * num_slots // size
        if self._map is not None:
            flat = torch.frombuffer(self._map, dtype=layout.dtype)
        else:
            flat = torch.empty(num_elements, dtype=layout.dtype, device=layout.device)
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        at = 0
        for each in layout.layers:
            for tensors, width in ((self.keys, each.key_size), (self.values, each.value_size)):
                shape = (num_slots, each.kv_heads, capacity, width)
                strides = (self._slot_bytes // size, capacity * width, width, 1)
                tensors.append(flat.as_strided(shape, strides, at))
                at += each.kv_heads * capacity * width

    @property
    def is_empty(self) -> bool:
        """Whether no session is here."""
        return len(self._free) == self.num_slots

    def take(self) -> int | None:
        """The lowest free slot; None when all are taken."""
        return heapq.heappop(self._free) if self._free else None

    def give_back(self, slot: int) -> None:
        """Return a slot's memory to the system; the next session there reads zeros."""
        if self._map is not None and self.num_slots > 1:
            start = slot * self._slot_bytes
            self._map.madvise(mmap.MADV_DONTNEED, start, self._slot_bytes)
        heapq.heappush(self._free, slot)


class KVPool:
    """The slabs of one block; grows and shrinks with its sessions.

    Slots are taken on the event loop and may be given back on the compute thread, which drops the
    last reference to a session whose forward was running: no step of that needs a lock.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        widest = max((each.num_elements for each in layout.layers), default=1)
        self.padding_tokens = max(PAGE_TOKENS, PADDING_ELEMENTS // widest)
        """By less than this, shorter sessions are padded to be attended to with longer ones."""
        self._slabs: dict[int, list[Slab]] = {}
        self._num_slots = SLOTS if _is_lazy(layout.device) else 1

    @property
    def num_slabs(self) -> int:
        """Slabs with at least one session."""
        return sum(map(len, self._slabs.values()))

    def take(self, max_tokens: int) -> tuple[Slab, int]:
        """A slot with room for a session of so many tokens; raises MemoryError."""
        capacity = whole_pages(max_tokens)
        if self._num_slots > 1:
            capacity = max(PAGE_TOKENS, 1 << (capacity - 1).bit_length())
        slabs = self._slabs.setdefault(capacity, [])
        for slab in slabs:
            slot = slab.take()
            if slot is not None:
                return slab, slot
        slab = self._new_slab(capacity, whole_pages(max_tokens))
        if slab.capacity == capacity:
            slabs.append(slab)
        return slab, slab.take() or 0

    def give_back(self, slab: Slab, slot: int) -> None:
        """A session has ended."""
        slab.give_back(slot)
        slabs = self._slabs.get(slab.capacity, [])
        if slab.is_empty and slab in slabs:
            slabs.remove(slab)

    def _new_slab(self, capacity: int, least: int) -> Slab:
        """Many slots; one, where the system promises no more addresses than it has memory."""
        with contextlib.suppress(MemoryError):
            return Slab(self.layout, capacity, self._num_slots)
        return Slab(self.layout, least, 1)


def _is_lazy(device: str) -> bool:
    """Whether memory that has not been touched costs nothing, and can be given back in parts."""
    return device == "cpu" and sys.platform == "linux"


def _reserve(num_bytes: int) -> mmap.mmap:
    """Zeroed memory straight from the system, so that it goes straight back to it."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    is_linux = sys.platform == "linux"
    try:
        memory = mmap.mmap(-1, num_bytes, flags=flags | (MAP_NORESERVE if is_linux else 0))
    except (OSError, OverflowError) as error:
        raise MemoryError(f"no addresses for {num_bytes} bytes of keys and values") from error
    if is_linux:
        # A huge page would make one token of one head cost 2 MiB.
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory
