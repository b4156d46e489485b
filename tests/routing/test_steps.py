"""Times of steps: between the counts that were measured, and what is usual."""

from __future__ import annotations

import pytest

from p2pnode.routing.steps import interpolated, usual_s
from p2pnode.types import LayerRange, SwarmView
from tests.support.peers import FINGERPRINT, announced, view

TIMES = ((1, 0.01, 0.02), (64, 0.073, 0.1))
MIDDLE = LayerRange(3, 6)


@pytest.mark.parametrize(
    ("num_tokens", "p50"), [(1, 0.01), (2, 0.011), (64, 0.073), (128, 0.146), (0, 0.01)]
)
def test_times_lie_between_those_measured(num_tokens: int, p50: float) -> None:
    assert interpolated(TIMES, num_tokens)[0] == pytest.approx(p50)


def measured(*p50s: float, layers: str = "3-5", p95: float = 0.0) -> SwarmView:
    names = "ABCEFG"[: len(p50s)]
    times = {
        name: {"step_times": ((1, p50, p50 + p95),)} for name, p50 in zip(names, p50s, strict=True)
    }
    return view(*(announced(name, layers) for name in names), **times)


def test_two_peers_do_not_say_what_is_usual() -> None:
    assert usual_s(measured(0.01, 0.01), FINGERPRINT, MIDDLE, 1) is None


def test_usual_is_the_mean_and_two_sigma_of_those_measured() -> None:
    assert usual_s(measured(0.01, 0.01, 0.01), FINGERPRINT, MIDDLE, 1) == pytest.approx(0.01)
    spread = measured(0.01, 0.012, 0.014)
    assert usual_s(spread, FINGERPRINT, MIDDLE, 1) == pytest.approx(0.012 + 2 * 0.001633, rel=1e-3)
    varying = measured(0.01, 0.01, 0.01, p95=0.001645)
    assert usual_s(varying, FINGERPRINT, MIDDLE, 1) == pytest.approx(0.01 + 2 * 0.001)


def test_usual_is_scaled_to_the_layers_asked_for() -> None:
    swarm = measured(0.09, 0.09, 0.09, layers="0-8")
    assert usual_s(swarm, FINGERPRINT, MIDDLE, 1) == pytest.approx(0.03)


def test_peers_without_these_layers_say_nothing_about_them() -> None:
    assert usual_s(measured(0.01, 0.01, 0.01), FINGERPRINT, LayerRange(6, 9), 1) is None


def test_a_peer_that_is_always_slow_does_not_make_itself_usual() -> None:
    usual = usual_s(measured(0.01, 0.01, 0.45), FINGERPRINT, MIDDLE, 1)
    assert usual == pytest.approx(0.01)
