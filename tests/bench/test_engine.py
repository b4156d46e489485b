"""The scheduler's own limit, driven by step times that are made up."""

from __future__ import annotations

import pytest

from p2pnode.bench.engine import LIMITS, _best_rate, _own_limit, _p95_wait_s


@pytest.mark.parametrize(("fixed_s", "token_s"), [(0.050, 0.005), (0.010, 0.0005), (0.001, 0.01)])
def test_its_own_limit_is_near_the_best_rate(fixed_s: float, token_s: float) -> None:
    step_s = {sessions: fixed_s + token_s * sessions for sessions in LIMITS}

    rates = {limit: _best_rate(step_s, limit) for limit in (1, 8, 64)}

    assert _best_rate(step_s, None) >= 0.9 * max(rates.values())
    assert rates[1] <= rates[8] <= rates[64]
    assert _own_limit(step_s) >= 8


def test_steps_that_cannot_be_kept_up_with_wait_for_ever() -> None:
    step_s = dict.fromkeys(LIMITS, 0.1)

    assert _p95_wait_s(step_s, 1, rate=20.0) == float("inf")
    assert _p95_wait_s(step_s, 64, rate=20.0) <= 0.1
