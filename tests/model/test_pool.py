"""Memory of sessions: reserved as addresses, taken as it is touched, given back at once."""

from __future__ import annotations

import gc
import sys

import psutil
import pytest
import torch

from p2pnode.model.cache import KVCache
from p2pnode.model.pool import PAGE_TOKENS, SLOTS, KVPool, Layout, Widths, whole_pages
from p2pnode.types import LayerRange

LAYERS = LayerRange(3, 11)
LAYOUT = Layout((Widths(8, 64, 64),) * len(LAYERS), torch.float32, "cpu")
MB = 1 << 20

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory is not lazy")


def rss() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def fill(cache: KVCache, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Append ones to all layers; the last layer's views."""
    for layer in cache.layers:
        new = torch.ones(1, 8, tokens, 64)
        views = cache.append(layer, new, 2 * new)
    cache.advance(tokens)
    return views


@linux_only
def test_a_session_takes_the_memory_of_its_tokens_not_of_its_limit() -> None:
    pool, before = KVPool(LAYOUT), rss()
    cache = KVCache(LAYERS, 32_768, pool)
    assert cache.reserved_bytes == 1024 * MB

    fill(cache, 100)

    assert cache.num_bytes == whole_pages(100) * LAYOUT.bytes_per_token == 4 * MB
    assert rss() - before < 16 * MB


@linux_only
def test_what_a_session_took_goes_back_with_it_while_others_stay() -> None:
    pool = KVPool(LAYOUT)
    stays, goes = KVCache(LAYERS, 4096, pool), KVCache(LAYERS, 4096, pool)
    fill(stays, 10)
    fill(goes, 2000)
    with_both = rss()

    del goes

    assert with_both - rss() > 55 * MB
    assert pool.num_slabs == 1
    assert stays.append(3, torch.ones(1, 8, 1, 64), torch.ones(1, 8, 1, 64))[0].sum() == 11 * 8 * 64
    del stays
    assert pool.num_slabs == 0


def test_growing_to_32k_tokens_moves_nothing() -> None:
    layout = Layout((Widths(2, 16, 16),), torch.float32, "cpu")
    cache = KVCache(LayerRange(0, 1), 32_768, KVPool(layout))
    new = torch.randn(1, 2, 4096, 16)
    first, _ = cache.append(0, new, new)
    cache.advance(4096)
    for _ in range(7):
        keys, values = cache.append(0, new, -new)
        cache.advance(4096)

    assert keys.data_ptr() == first.data_ptr()
    assert cache.position == keys.shape[2] == 32_768
    assert torch.equal(keys[:, :, :4096], new)
    assert torch.equal(values[:, :, -4096:], -new)


def test_the_next_session_in_a_slot_reads_zeros() -> None:
    pool = KVPool(LAYOUT)
    cache, neighbour = KVCache(LAYERS, 100, pool), KVCache(LAYERS, 100, pool)
    fill(cache, 50)
    slot = cache.slot
    del cache

    other = KVCache(LAYERS, 100, pool)

    if pool.num_slabs == 1:
        assert (other.slab, other.slot) == (neighbour.slab, slot)
    assert not any(keys[other.slot].any() for keys in other.slab.keys)


@linux_only
def test_sessions_of_similar_size_share_a_slab() -> None:
    pool = KVPool(LAYOUT)
    caches = [KVCache(LAYERS, 65 + index, pool) for index in range(SLOTS + 1)]

    assert len({id(cache.slab) for cache in caches}) == pool.num_slabs == 2
    assert [cache.slot for cache in caches] == [*range(SLOTS), 0]
    assert caches[0].slab.capacity == 2 * PAGE_TOKENS
    KVCache(LAYERS, 1000, pool)
    assert pool.num_slabs == 2


def test_where_memory_is_not_lazy_each_session_has_exactly_its_own() -> None:
    pool = KVPool(Layout(LAYOUT.layers, torch.float32, "meta"))
    caches = [KVCache(LAYERS, 100, pool) for _ in range(3)]

    assert pool.num_slabs == 3
    assert caches[0].slab.keys[0].shape == (1, 8, 128, 64)
    caches.clear()
    assert pool.num_slabs == 0


def test_more_than_there_are_addresses_is_out_of_memory() -> None:
    pool = KVPool(LAYOUT)
    for tokens in (1 << 40, 1 << 56):
        with pytest.raises(MemoryError):
            KVCache(LAYERS, tokens, pool)
    assert pool.num_slabs == 0


def test_scrubbing_leaves_what_came_before() -> None:
    cache = KVCache(LAYERS, 100, KVPool(LAYOUT))
    fill(cache, 10)
    cache.append(3, torch.full((1, 8, 4, 64), torch.nan), torch.full((1, 8, 4, 64), torch.inf))
    cache.advance(4)

    cache.scrub(10)

    assert cache.position == 10
    assert cache.slab.keys[0][cache.slot].sum() == 10 * 8 * 64
    assert cache.slab.values[0][cache.slot].sum() == 2 * 10 * 8 * 64
