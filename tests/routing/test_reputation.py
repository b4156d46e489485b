"""What is held against a peer, for how long, and what is shown of it."""

from __future__ import annotations

import pytest

from p2pnode.routing.histogram import STEP_EDGES_S, Histogram
from p2pnode.routing.reputation import HALF_LIFE_S, MAX_PEERS, POINTS, Offence, Reputation
from p2pnode.types import PeerId
from tests.support.peers import peer

A, B = peer("A"), peer("B")


def blamed(*offences: Offence, now: float = 0.0) -> Reputation:
    reputation = Reputation()
    for offence in offences:
        reputation.blame(A, offence, now)
    return reputation


def score(reputation: Reputation, now: float) -> float:
    record = reputation.records().get(A)
    return record.score(now) if record else 0.0


@pytest.mark.parametrize("offence", Offence)
def test_an_offence_counts_and_fades(offence: Offence) -> None:
    reputation = blamed(offence)
    assert score(reputation, 0.0) == POINTS[offence]
    assert score(reputation, HALF_LIFE_S) == pytest.approx(POINTS[offence] / 2)
    assert score(reputation, 20 * HALF_LIFE_S) < 1e-5


def test_repeated_failures_back_off_exponentially() -> None:
    reputation, waits = Reputation(), []
    for _ in range(4):
        reputation.blame(A, Offence.TIMEOUT, 0.0)
        record = reputation.records().get(A)
        waits.append(record.last_resort_until if record else 0.0)
    assert waits == [30.0, 60.0, 120.0, 240.0]
    assert reputation.last_resorts(239.0) == {A}
    assert not reputation.is_last_resort(A, 240.0)


def test_one_lost_hedge_is_forgiven_and_a_series_is_not() -> None:
    assert not blamed(Offence.OUTPACED).last_resorts(0.0)
    assert blamed(*[Offence.OUTPACED] * 4).last_resorts(0.0) == {A}


def test_failures_cost_more_than_nothing_known_and_steadiness_less() -> None:
    reputation = blamed(Offence.LOST)
    for now in range(0, 7200, 60):
        reputation.saw([B], float(now))
    risk_s = reputation.risk_s([A, B, peer("C")], 0.0)
    assert risk_s[A] > risk_s[peer("C")] > risk_s[B] > 0


def test_losses_count_for_longer_than_points() -> None:
    risk_s = blamed(*[Offence.LOST] * 3).risk_s([A, B], 50 * HALF_LIFE_S)
    assert risk_s[A] > 5 * risk_s[B]


def test_uptime_begins_anew_after_a_loss_or_a_gap() -> None:
    reputation = Reputation()
    for now in (0.0, 60.0, 120.0):
        reputation.saw([A], now)
    reputation.blame(A, Offence.LOST, 130.0)
    record = reputation.records().get(A)
    assert record is not None
    assert (record.uptimes.total, record.uptimes.quantile(0.5)) == (1, 600.0)
    assert record.watched_s == 120.0
    reputation.saw([A], 1000.0)
    reputation.saw([A], 5000.0)
    assert record.watched_s == 120.0, "nobody looked in between"


def test_steps_are_kept_as_a_histogram() -> None:
    reputation = Reputation()
    for step_s in (0.003, 0.003, 0.5):
        reputation.measured(A, step_s, 0.0)
    record = reputation.records()[A]
    assert record.steps.total == 3
    assert (record.steps.quantile(0.5), record.steps.quantile(0.99)) == (0.004, 0.512)


def test_a_histogram_has_room_below_and_above() -> None:
    histogram = Histogram(STEP_EDGES_S)
    assert histogram.quantile(0.5) is None
    histogram.add(0.0)
    histogram.add(1e9)
    assert (histogram.counts[0], histogram.counts[-1]) == (1, 1)
    assert histogram.quantile(1.0) == STEP_EDGES_S[-1]


def test_memory_is_bounded_and_the_blamed_are_remembered() -> None:
    reputation = blamed(Offence.MISBEHAVED)
    for number in range(MAX_PEERS + 10):
        reputation.measured(PeerId(f"peer-{number}"), 0.01, 0.0)
    assert len(reputation.records()) == MAX_PEERS
    assert reputation.records().get(A) is not None
