"""Where the time of a step goes, as a client makes it out from what hops say and when."""

from __future__ import annotations

from p2pnode.pipeline.hops import HopState
from p2pnode.pipeline.times import step_times
from p2pnode.trust.envelope import peer_of
from p2pnode.types import Hop, LayerRange
from tests.support.announcements import key_pair


def hop(number: int, queue_s: float, compute_s: float) -> HopState:
    layers = LayerRange(9 * number, 9 * number + 9)
    state = HopState(Hop(peer_of(key_pair(number).public_key), layers))
    state.recent_queue_s, state.recent_compute_s = queue_s, compute_s
    return state


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def test_what_is_neither_waiting_nor_computing_is_the_way() -> None:
    times = step_times([hop(0, 0.001, 0.004), hop(1, 0.0, 0.006)], [0.015, 0.045])
    assert [rounded(each.way_s) for each in times] == [0.01, 0.024]
    assert sum((each.way_s or 0.0) + each.queue_s + each.compute_s for each in times) == 0.045


def test_before_a_step_was_measured_the_way_is_not_known() -> None:
    (only,) = step_times([hop(0, 0.001, 0.004)], [])
    assert (only.way_s, only.compute_s) == (None, 0.004)


def test_a_hop_that_claims_more_than_has_passed_gets_no_negative_way() -> None:
    (only,) = step_times([hop(0, -5.0, 1e6)], [0.015])
    assert (only.way_s, only.queue_s) == (0.0, 0.0)
