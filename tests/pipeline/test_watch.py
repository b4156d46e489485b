"""How late is late: expectations, hedges and deadlines of the hops of a chain."""

from __future__ import annotations

import pytest

from p2pnode.pipeline.watch import KNOWN_STEPS, MIN_SIGMA_S, Lag, Watch

ALONE, BACKED = [False] * 3, [True] * 3
NONE = [0.0] * 3


def learned(*steps: tuple[float, float, float], floor_s: float = 0.1) -> Watch:
    """A watch of three hops after steps in which they were heard of at these times."""
    watch = Watch(3, floor_s)
    for heard in steps:
        run(watch, heard)
    return watch


def run(watch: Watch, heard: tuple[float, float, float], began: float = 100.0) -> None:
    watch.start(began)
    for index, after_s in enumerate(heard):
        watch.hear(index, began + after_s)
    watch.end(began + heard[-1], began)


def test_mean_and_deviation_follow_what_is_measured() -> None:
    lag = Lag()
    for _ in range(200):
        lag.note(0.08)
        lag.note(0.12)
    assert lag.mean_s == pytest.approx(0.1, abs=0.005)
    assert lag.sigma_s == pytest.approx(0.02, abs=0.003)


def test_a_steady_hop_is_still_granted_a_little() -> None:
    lag = Lag()
    for _ in range(50):
        lag.note(0.001)
    assert lag.sigma_s == MIN_SIGMA_S


def test_nothing_is_expected_before_anything_is_known() -> None:
    assert not Watch(3, 0.1).is_learned
    assert learned((0.02, 0.04, 0.06)).is_learned


def test_the_first_silent_hop_is_due_and_the_others_are_not_blamed_for_it() -> None:
    watch = learned(*[(0.02, 0.04, 0.06)] * 20)
    watch.start(200.0)
    assert watch.due(BACKED, NONE).index == 0
    watch.hear(0, 200.02)
    assert watch.due(BACKED, NONE).index == 1
    watch.hear(1, 200.04)
    assert watch.due(BACKED, NONE).index == 2


def test_data_has_passed_all_hops_before_one_that_was_heard_of() -> None:
    watch = learned(*[(0.02, 0.04, 0.06)] * 20)
    watch.start(200.0)
    watch.hear(1, 200.04)
    assert watch.due(BACKED, NONE).index == 2


def test_a_hedge_is_due_before_a_death_and_both_after_the_mean() -> None:
    watch = learned(*[(0.02, 0.04, 0.06)] * 20)
    watch.start(200.0)
    due = watch.due(BACKED, NONE)
    assert 200.02 < due.hedge_at < due.dead_at
    assert due.dead_at == pytest.approx(200.02 + 0.1), "the floor"


def test_a_hop_is_not_blamed_for_the_lateness_of_the_one_before() -> None:
    watch = learned(*[(0.02, 0.04, 0.06)] * 20)
    watch.start(200.0)
    before = watch.due(BACKED, NONE)
    watch.hear(0, 200.5)
    assert watch.due(BACKED, NONE).hedge_at == pytest.approx(before.hedge_at + 0.5, abs=0.01)


def test_who_has_no_standby_is_waited_for_longer_but_not_for_ever() -> None:
    watch = learned(*[(0.2, 0.4, 0.6)] * 20)
    watch.start(200.0)
    alone, backed = watch.due(ALONE, NONE), watch.due(BACKED, NONE)
    assert 200.2 < backed.dead_at < alone.dead_at < 200.2 + 4 * 0.6 + 0.01


def test_a_hop_slower_than_is_usual_is_hedged_earlier() -> None:
    watch = learned(*[(0.02, 0.04, 0.06)] * 20)
    watch.start(200.0)
    usual, slow = watch.due(BACKED, NONE), watch.due(BACKED, [0.015, 0.0, 0.0])
    assert slow.hedge_at == pytest.approx(usual.hedge_at - 0.015)
    assert slow.dead_at == usual.dead_at


def test_giving_up_makes_the_next_verdict_slower_and_good_steps_forgive() -> None:
    watch = learned(*[(0.02, 0.04, 0.06)] * 20)
    watch.start(200.0)
    strict = watch.due(ALONE, NONE).dead_at
    watch.give_up()
    assert watch.due(ALONE, NONE).dead_at > strict + 0.05
    for _ in range(60):
        run(watch, (0.02, 0.04, 0.06))
    watch.start(200.0)
    assert watch.due(ALONE, NONE).dead_at == pytest.approx(strict, abs=0.01)


def test_a_successor_is_expected_to_be_about_as_fast() -> None:
    watch = learned(*[(0.02, 0.04, 0.06)] * 20)
    watch.replace(1)
    watch.start(200.0)
    watch.hear(0, 200.02)
    due = watch.due(BACKED, NONE)
    assert due.index == 1
    assert 200.04 < due.hedge_at < 200.1


def test_a_hop_is_late_once_it_is_known_what_is_usual() -> None:
    usual, late = (0.02, 0.04, 0.06), (0.02, 0.07, 0.09)
    for num_known in range(1, KNOWN_STEPS):
        assert learned(*[usual] * num_known, late).late_steps == [0, 0, 0]
    watch = learned(*[usual] * KNOWN_STEPS, late)
    assert watch.late_steps == [0, 1, 0]
    run(watch, late)
    assert watch.late_steps == [0, 2, 0]
    run(watch, usual)
    assert watch.late_steps == [0, 0, 0]


def test_a_successor_is_not_late_before_it_is_known_itself() -> None:
    watch = learned(*[(0.02, 0.04, 0.06)] * 20)
    watch.replace(1)
    run(watch, (0.02, 0.1, 0.12))
    assert watch.late_steps == [0, 0, 0]
