"""Lines through measured forwards: what is between the points, and what is not known."""

from __future__ import annotations

import pytest

from p2pnode.trend import Trend

SIZES = (1, 4, 8, 2, 6) * 4


def trend(*points: tuple[float, float], keep: float = 1.0) -> Trend:
    made = Trend(keep=keep)
    for tokens, seconds in points:
        made.note(tokens, seconds)
    return made


def test_a_trend_follows_what_forwards_cost() -> None:
    assert Trend().at(8) == 0.0
    made = trend(*((tokens, 0.01 + 0.002 * tokens) for tokens in SIZES))
    assert made.at(16) == pytest.approx(0.042)
    cost = made.cost(usual_knee=32.0, max_knee=1024.0)
    assert (cost.fixed_s, cost.token_s) == pytest.approx((0.01, 0.002))
    assert cost.knee == pytest.approx(5.0)


def test_of_one_size_no_better_is_known_than_in_proportion() -> None:
    single = trend((4, 0.01), (4, 0.01))
    assert single.token_s is None
    assert single.at(8) == pytest.approx(0.02)
    assert single.at(1) == pytest.approx(0.01)
    assert single.cost(usual_knee=32.0, max_knee=1024.0).knee == 32.0


def test_old_points_fade() -> None:
    made = trend(*((tokens, 1.0 * tokens) for tokens in SIZES), keep=0.5)
    for tokens in SIZES:
        made.note(tokens, 0.01 * tokens)
    assert made.at(8) == pytest.approx(0.08, rel=0.01)


def test_heavier_points_count_more() -> None:
    made = trend((1, 0.01), (9, 0.09))
    made.note(9, 0.18, 1e-6)
    assert made.at(9) == pytest.approx(0.09, rel=1e-3)


@pytest.mark.parametrize("slope", [-0.1, 0.0, 5.0])
def test_both_parts_of_a_cost_are_positive(slope: float) -> None:
    cost = trend((1, 1.0), (2, 1.0 + slope)).cost(usual_knee=32.0, max_knee=1024.0)
    assert cost.fixed_s > 0.0
    assert 1.0 <= cost.knee <= 1025.0
