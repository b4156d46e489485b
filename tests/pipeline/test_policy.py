"""How many tokens to guess: more where that pays, none where it does not, and not for ever none."""

from __future__ import annotations

import pytest

from p2pnode.pipeline.policy import MAX_AHEAD, PROBE_EVERY, PROBE_TOKENS, Policy

LOOP_S = 0.08


def policy(acceptance: float, *, draft_s: float = 0.001, step_s: float = 0.0) -> Policy:
    made = Policy(acceptance=acceptance, draft_s=draft_s)
    for tokens in (1, 4, 8):
        made.computed(0, tokens, step_s * tokens)
    return made


def test_a_good_drafter_pays_nearly_what_the_formula_allows() -> None:
    made = policy(0.8)
    best = max(made.gain(size, LOOP_S, LOOP_S) for size in range(1, 17))
    assert made.gain(made.window(0, LOOP_S, LOOP_S), LOOP_S, LOOP_S) == pytest.approx(best)
    assert 4.0 < best < 5.0, "at most 1 / (1 - a)"


def test_what_a_larger_step_takes_at_every_hop_counts_against_it() -> None:
    made = policy(0.9, draft_s=0.0001)
    alone = made.window(0, LOOP_S, LOOP_S)
    for hop in range(8):
        for tokens in (1, 2, 4, 8):
            made.computed(hop, tokens, 0.0001 + 0.0005 * tokens)
    assert made.window(0, LOOP_S, LOOP_S) < alone
    assert made.gain(8, LOOP_S, LOOP_S) < made.gain(4, LOOP_S, LOOP_S)


def test_what_a_guess_takes_is_found_out_with_one() -> None:
    assert policy(0.9, draft_s=0.0).window(0, LOOP_S, LOOP_S) == 1


def test_a_drafter_that_is_always_wrong_is_given_up() -> None:
    made = policy(0.7)
    for _ in range(200):
        made.told(is_right=False)
    made.window(0, LOOP_S, LOOP_S)  # it may have been time for another attempt
    assert made.window(0, LOOP_S, LOOP_S) == 0


def test_it_is_tried_again_from_time_to_time() -> None:
    made = policy(0.0)
    sizes = []
    for _ in range(3 * PROBE_EVERY):
        made.told(is_right=None)
        sizes.append(made.window(0, LOOP_S, LOOP_S))
    assert sizes.count(0) == len(sizes) - 3
    assert 0 < max(sizes) <= PROBE_TOKENS


def test_a_slow_drafter_is_not_worth_it_on_a_fast_chain() -> None:
    assert policy(0.3, draft_s=0.05).window(0, 0.01, 0.01) == 0


@pytest.mark.parametrize(("step_s", "most"), [(0.0, 9), (0.001, 8), (0.02, 6)])
def test_what_is_unlikely_to_be_reached_is_not_guessed(step_s: float, most: int) -> None:
    made = policy(0.5, step_s=step_s)
    ahead = 0
    while size := made.window(ahead, LOOP_S, LOOP_S):
        ahead += size
    assert ahead == most, "less where it costs the slowest hop more"
    assert policy(0.99).window(MAX_AHEAD, LOOP_S, LOOP_S) == 0


def test_steps_that_cost_much_each_want_larger_windows() -> None:
    cheap, dear = policy(0.9), policy(0.9)
    for tokens in (1, 2, 4, 8) * 8:
        dear.computed(1, tokens, 0.01 + 0.0001 * tokens)
    assert dear.window(0, LOOP_S, LOOP_S) > cheap.window(0, LOOP_S, LOOP_S)
    assert dear.interval_s(4) > 0.01
