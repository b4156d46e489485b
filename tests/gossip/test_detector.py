"""The failure detector: suspicion, refutation, and patience where it may be us."""

from __future__ import annotations

import pytest

from p2pnode.gossip.detector import Detector
from p2pnode.net.memory import fake_peer_id
from p2pnode.types import Liveness

ALIVE, SUSPECT, DEAD = Liveness.ALIVE, Liveness.SUSPECT, Liveness.DEAD
US, PEER, OTHER, *ACCUSERS = (fake_peer_id(number) for number in range(8))
PERIOD_S = 1.0
NUM_PEERS = 10


def detector() -> Detector:
    """One that has just heard from somebody."""
    made = Detector(PERIOD_S)
    made.answered(OTHER, 100.0)
    return made


def died_at(made: Detector, began: float, until: float = 200.0) -> float | None:
    """When `expire` declares somebody dead, while others answer us."""
    now = began
    while now < until:
        now += 0.1
        made.answered(OTHER, now)
        if made.expire(NUM_PEERS, now):
            return now - began
    return None


def test_whom_nobody_accuses_is_alive() -> None:
    made = detector()
    assert made.liveness(PEER) is ALIVE
    assert died_at(made, 100.0) is None


def test_an_accused_peer_is_suspect_and_dies_unless_it_refutes() -> None:
    made = detector()
    assert made.accused(PEER, US, 5, 100.0)
    assert made.liveness(PEER) is SUSPECT
    assert died_at(made, 100.0) == pytest.approx(12.0, abs=0.2)
    assert made.liveness(PEER) is DEAD


def test_the_more_accuse_it_the_sooner_it_dies() -> None:
    times = []
    for count in range(1, 5):
        made = detector()
        for accuser in ACCUSERS[:count]:
            made.accused(PEER, accuser, 5, 100.0)
        times.append(died_at(made, 100.0))
    assert times == sorted(times, reverse=True)  # type: ignore[type-var]
    assert times[-1] == pytest.approx(4.0, abs=0.2)


def test_an_accuser_counts_once() -> None:
    made = detector()
    assert made.accused(PEER, OTHER, 5, 100.0)
    assert not made.accused(PEER, OTHER, 5, 101.0)
    assert died_at(made, 100.0) == pytest.approx(12.0, abs=0.2)


def test_a_newer_health_refutes_and_an_old_one_does_not() -> None:
    made = detector()
    made.accused(PEER, OTHER, 5, 100.0)
    assert not made.heard(PEER, 5)
    assert made.liveness(PEER) is SUSPECT
    assert made.heard(PEER, 6)
    assert made.liveness(PEER) is ALIVE
    assert died_at(made, 100.0) is None


def test_an_answer_refutes() -> None:
    made = detector()
    made.accused(PEER, OTHER, 5, 100.0)
    assert made.answered(PEER, 101.0)
    assert made.liveness(PEER) is ALIVE


def test_a_suspicion_of_an_older_health_is_no_news() -> None:
    made = detector()
    made.accused(PEER, ACCUSERS[0], 5, 100.0)
    assert not made.accused(PEER, ACCUSERS[1], 4, 100.0)
    assert made.accused(PEER, ACCUSERS[1], 6, 105.0)
    assert died_at(made, 105.0) == pytest.approx(12.0, abs=0.2), "it begins anew"


def test_the_dead_revive_when_they_speak() -> None:
    made = detector()
    made.accused(PEER, OTHER, 5, 100.0)
    assert died_at(made, 100.0)
    assert not made.accused(PEER, ACCUSERS[0], 5, 120.0)
    assert not made.heard(PEER, 5)
    assert made.liveness(PEER) is DEAD
    assert made.heard(PEER, 6)
    assert made.liveness(PEER) is ALIVE


def test_what_a_peer_said_to_us_just_now_is_fresh_for_three_periods() -> None:
    made = detector()
    made.answered(PEER, 100.0)
    assert made.is_fresh(PEER, 102.9)
    assert not made.is_fresh(PEER, 103.1)
    assert not made.is_fresh(OTHER, 110.0)


def test_whoever_hears_from_nobody_waits_longer_before_it_calls_others_dead() -> None:
    made = detector()
    for accuser in ACCUSERS:
        made.accused(PEER, accuser, 5, 100.0)
    made.doubted()
    now = 100.0
    while not made.expire(NUM_PEERS, now):
        now += 0.1
    assert now - 100.0 == pytest.approx(4.0, abs=0.2), "while somebody has answered lately"
    alone = detector()
    for accuser in ACCUSERS:
        alone.accused(PEER, accuser, 5, 106.0)
    alone.doubted()
    now = 106.0
    while not alone.expire(NUM_PEERS, now):
        now += 0.1
    assert now - 106.0 == pytest.approx(24.0, abs=0.2)


def test_failures_of_ours_make_us_slower_and_successes_faster() -> None:
    made = detector()
    assert made.slowness == 1
    for _ in range(20):
        made.doubted()
    assert made.slowness == 9
    for _ in range(20):
        made.answered(OTHER, 101.0)
    assert made.slowness == 1


def test_in_a_swarm_of_two_nobody_else_can_confirm() -> None:
    made = detector()
    made.accused(PEER, US, 5, 100.0)
    now = 100.0
    while not made.expire(1, now):
        made.answered(OTHER, now)
        now += 0.1
    assert now - 100.0 == pytest.approx(4.0, abs=0.2)
