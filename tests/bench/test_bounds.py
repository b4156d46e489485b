"""The bounds of `p2pnode bench`: known values, and what must hold for all of them."""

from __future__ import annotations

import pytest

from p2pnode.bench.bounds import (
    Costs,
    asynchronous_rate,
    best_asynchronous,
    best_chunked_s,
    best_synchronous,
    chunked_prefill_s,
    flush_bound,
    line_through,
    synchronous_rate,
    whole_prefill_s,
)

COSTS = Costs(num_hops=3, delay_s=0.02, fixed_s=0.002, token_s=0.0005, overhead_s=0.001)
THIN = Costs(
    num_hops=3,
    delay_s=0.02,
    fixed_s=0.005,
    token_s=0.0004,
    token_bytes=2048.0,
    up_bytes_per_s=2.5e6,
)


def test_a_loop_is_all_its_ways_and_forwards() -> None:
    assert COSTS.loop_s() == pytest.approx(4 * 0.021 + 3 * 0.0025)
    assert COSTS.loop_s(8) == pytest.approx(4 * 0.021 + 3 * 0.006)


def test_without_guesses_synchronous_decoding_is_plain() -> None:
    assert synchronous_rate(COSTS, 0.8, 0, 0.005) == pytest.approx(1 / COSTS.loop_s())


def test_guesses_that_are_always_right_make_k_plus_one_tokens_per_window() -> None:
    rate = synchronous_rate(COSTS, 1.0, 4, 0.005)
    assert rate == pytest.approx(5 / (0.02 + COSTS.loop_s(5)))


def test_guesses_that_are_never_right_give_nothing() -> None:
    assert asynchronous_rate(COSTS, 0.0, 1, 0.001) == pytest.approx(1 / COSTS.loop_s())


def test_a_run_of_guesses_by_hand() -> None:
    # Windows of one token: 1 / (1 - a) = 5 tokens in a loop and 4 windows of 5 ms.
    rate = asynchronous_rate(COSTS, 0.8, 1, 0.005)
    assert rate == pytest.approx(5 / (COSTS.loop_s() + 4 * 0.005))


@pytest.mark.parametrize("acceptance", [0.3, 0.6, 0.8, 0.9, 0.95])
def test_nothing_beats_the_flush_bound_and_asynchronous_windows_beat_synchronous_ones(
    acceptance: float,
) -> None:
    waiting, num_guesses = best_synchronous(COSTS, acceptance, 0.005)
    flowing, window = best_asynchronous(COSTS, acceptance, 0.005)
    assert num_guesses > 0
    assert window >= 1
    assert 1 / COSTS.loop_s() < waiting < flowing < flush_bound(COSTS, acceptance)


def test_a_whole_prompt_is_sent_and_computed_hop_after_hop() -> None:
    ways, sending, computing = 4 * 0.02, 2 * 1024 * 2048 / 2.5e6, 3 * (0.005 + 0.4096)
    assert whole_prefill_s(THIN, 1024) == pytest.approx(ways + sending + computing)


def test_a_prompt_in_one_chunk_is_whole() -> None:
    assert chunked_prefill_s(THIN, 1024, 1024) == pytest.approx(whole_prefill_s(THIN, 1024))


def test_chunks_follow_each_other_at_the_pace_of_the_slower_of_link_and_hop() -> None:
    link_s, hop_s = 64 * 2048 / 2.5e6, 0.005 + 64 * 0.0004
    assert link_s > hop_s
    expected = THIN.loop_s(64) + 15 * link_s
    assert chunked_prefill_s(THIN, 1024, 64) == pytest.approx(expected)


def test_the_best_chunk_is_better_than_the_others() -> None:
    best_s, chunk = best_chunked_s(THIN, 1024)
    assert best_s == chunked_prefill_s(THIN, 1024, chunk)
    assert best_s < chunked_prefill_s(THIN, 1024, 512)
    assert best_s <= chunked_prefill_s(THIN, 1024, 16)


def test_costs_are_never_negative() -> None:
    assert line_through((1, 0.002), (5, 0.006)) == pytest.approx((0.001, 0.001))
    assert line_through((1, 0.006), (5, 0.002)) == (0.006, 0.0)
    assert line_through((1, 0.001), (5, 0.009)) == (0.0, 0.002)
    assert line_through((4, 0.008), (4, 0.009)) == (0.0, 0.002)
