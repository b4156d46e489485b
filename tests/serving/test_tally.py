"""What a node counts of its own work."""

from __future__ import annotations

import pytest

from p2pnode.serving.tally import ERRORS_FOR_S, MAX_KNEE, USUAL_KNEE, Tally


def test_compute_times_are_kept_by_the_tokens_of_a_forward() -> None:
    tally = Tally()
    for index in range(100):
        tally.forward(1, 0.010 if index % 10 else 0.050)
        tally.forward(32, 0.2)
    assert tally.step_times() == ((1, 0.010, 0.050), (32, 0.2, 0.2))
    assert tally.busy_s == pytest.approx(90 * 0.010 + 10 * 0.050 + 100 * 0.2)


def test_what_was_measured_before_counts_until_enough_has_been_seen() -> None:
    tally = Tally([(1, 0.002), (64, 0.1)])
    assert tally.step_times() == ((1, 0.002, 0.002), (64, 0.1, 0.1))
    assert tally.busy_s == 0.0
    for _ in range(3):
        tally.forward(1, 0.004)
    assert tally.step_times() == ((1, 0.004, 0.004), (64, 0.1, 0.1))


def test_only_the_last_times_count() -> None:
    tally = Tally()
    for _ in range(100):
        tally.forward(1, 1.0)
    for _ in range(64):
        tally.forward(1, 0.001)
    assert tally.step_times() == ((1, 0.001, 0.001),)


def test_errors_are_counted_by_kind_and_forgotten_after_minutes() -> None:
    tally = Tally()
    for kind in ("out-of-memory", "input", "out-of-memory", "a", "b", "c"):
        tally.failed(kind, now=10.0)
    assert tally.errors(10.0)[0] == ("out-of-memory", 2)
    assert len(tally.errors(10.0)) == 4
    assert tally.errors(10.0 + ERRORS_FOR_S + 1.0) == ()


def test_the_cost_of_a_forward_is_the_line_through_typical_ones() -> None:
    tally = Tally()
    for index in range(50):
        for tokens in (1, 5, 40, 200):
            is_disturbed = index % 10 == 3
            tally.forward(tokens, 0.020 + 0.001 * tokens + is_disturbed)
    assert tally.cost().fixed_s == pytest.approx(0.020)
    assert tally.cost().token_s == pytest.approx(0.001)


def test_before_there_are_two_sizes_the_knee_is_a_usual_one() -> None:
    tally = Tally()
    assert tally.cost().knee == pytest.approx(USUAL_KNEE)
    tally.forward(1, 0.033)
    assert tally.cost().knee == pytest.approx(USUAL_KNEE)
    nothing = Tally()
    nothing.forward(1, 0.0)
    assert nothing.cost().knee == pytest.approx(USUAL_KNEE)


@pytest.mark.parametrize("slower", [-1.0, 0.0, 1.0, 1e6])
def test_whatever_is_measured_a_cost_is_positive_and_its_knee_is_within_bounds(
    slower: float,
) -> None:
    tally = Tally()
    tally.forward(1, 0.020)
    tally.forward(500, 0.020 * max(1e-3, 1.0 + slower))
    assert tally.cost().fixed_s > 0
    assert 0.5 <= tally.cost().knee <= MAX_KNEE * 1.001
