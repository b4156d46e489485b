"""Chunks of a prompt: small enough to fill the chain soon, large enough to be worth their steps."""

from __future__ import annotations

import pytest

from p2pnode.routing.prefill import best_chunk, prefill_s

FREE = [(1, 0.0, 0.0), (512, 0.0, 0.0)]


def steady(alpha_s: float, beta_s: float) -> list[tuple[int, float, float]]:
    """Steps that cost alpha and beta per token, measured at a few sizes."""
    times = [(n, alpha_s + beta_s * n) for n in (1, 16, 128, 512)]
    return [(n, each, each) for n, each in times]


def test_one_chunk_takes_the_sum_of_all_hops_and_links() -> None:
    hops = [steady(0.01, 0.001)] * 3
    assert prefill_s(100, 128, hops, [0.002, 0.002, 0.0]) == pytest.approx(3 * 0.11 + 2 * 0.2)


def test_many_chunks_follow_at_the_pace_of_the_slowest() -> None:
    hops = [steady(0.0, 0.001), steady(0.0, 0.003), steady(0.0, 0.001)]
    assert prefill_s(1024, 64, hops, [0.0] * 3) == pytest.approx(0.064 * 5 + 15 * 0.192)


def test_dear_steps_want_large_chunks_and_cheap_ones_small_chunks() -> None:
    dear = best_chunk(1024, [steady(0.2, 0.001)] * 3, [0.0] * 3)
    cheap = best_chunk(1024, [steady(0.0005, 0.001)] * 3, [0.0] * 3)
    assert cheap < dear
    assert cheap <= 64


def test_a_chain_of_one_hop_gets_the_largest() -> None:
    assert best_chunk(1024, [steady(0.01, 0.001)], [0.0]) == 512


def test_a_slow_link_counts_like_a_slow_hop() -> None:
    quick = prefill_s(1024, 128, [FREE] * 3, [0.0] * 3)
    slow = prefill_s(1024, 128, [FREE] * 3, [0.001, 0.001, 0.0])
    assert quick == 0.0
    assert slow == pytest.approx(2 * 0.128 + 7 * 0.128)
