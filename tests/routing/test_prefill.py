"""Chunks of a prompt: small enough to fill the chain soon, large enough to be worth their steps."""

from __future__ import annotations

from typing import Any

import pytest

from p2pnode.routing.prefill import announced_times, best_chunk, chunk_tokens, prefill_s
from p2pnode.types import Chain, Hop, SwarmView
from tests.support.peers import announced, view

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


RATES: dict[str, Any] = {"flops_per_s": 3.2e12, "memory_bytes_per_s": 2e11}
"""With four bytes per weight, 32 tokens take twice as long as one."""


def chain_of(swarm: SwarmView) -> Chain:
    hops = tuple(Hop(each.peer, each.layers, each.addresses) for each in swarm.announcements)
    return Chain(hops, "float32")


def test_a_peer_without_health_is_as_fast_as_it_announced() -> None:
    times = announced_times(announced("a", "0-2", latency_s=0.04, **RATES))
    assert [n for n, *_ in times] == [1, 512]
    assert times[0][1] == pytest.approx(0.04)
    assert times[1][1] == pytest.approx(0.04 * (1 + 511 / 32), rel=0.05)


@pytest.mark.parametrize("rate", [0.0, 1e300, float("inf")])
def test_rates_that_nobody_has_give_a_chunk_all_the_same(rate: float) -> None:
    strange = [announced("a", "0-3", flops_per_s=rate), announced("b", "4-8", flops_per_s=rate)]
    swarm = view(*strange)
    assert chunk_tokens(swarm, chain_of(swarm), 1024, 1000) in range(16, 513)


def test_what_health_tells_counts_before_what_was_announced() -> None:
    peers = [announced(name, part, **RATES) for name, part in (("a", "0-3"), ("b", "4-8"))]
    told = {"step_times": tuple(steady(0.4, 0.001))}
    known, unknown = view(*peers, a=told, b=told), view(*peers)
    by_health = chunk_tokens(known, chain_of(known), 1024, 1024)
    by_announcement = chunk_tokens(unknown, chain_of(unknown), 1024, 1024)
    assert by_health is not None
    assert by_announcement is not None
    assert by_health > by_announcement


def test_of_a_peer_that_announces_nothing_nothing_is_known() -> None:
    swarm = view(announced("a", "0-8"))
    assert chunk_tokens(SwarmView((), {}), chain_of(swarm), 1024, 1024) is None
