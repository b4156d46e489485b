"""How long a silent hop is waited for."""

from __future__ import annotations

import pytest

from p2pnode.pipeline.patience import Patience


def patience(*steps_s: float) -> Patience:
    made = Patience(floor_s=1.0, ceiling_s=30.0)
    for step_s in steps_s:
        made.note(step_s)
    return made


def test_without_a_history_it_is_the_ceiling() -> None:
    assert patience().seconds(1) == 30.0


def test_a_prompt_may_take_the_ceiling_whatever_the_history() -> None:
    assert patience(*[0.01] * 20).seconds(2) == 30.0


def test_fast_steps_never_make_it_shorter_than_the_floor() -> None:
    assert patience(*[0.001] * 50).seconds(1) == 1.0


def test_slow_steps_never_make_it_longer_than_the_ceiling() -> None:
    assert patience(*[20.0] * 50).seconds(1) == 30.0


def test_steady_steps_are_waited_for_some_times_as_long() -> None:
    assert patience(*[0.5] * 50).seconds(1) == pytest.approx(4.0)


def test_unsteady_steps_are_waited_for_longer() -> None:
    assert patience(*[0.2, 0.8] * 25).seconds(1) > patience(*[0.5] * 50).seconds(1)


def test_one_slow_step_is_forgotten() -> None:
    assert patience(5.0, *[0.3] * 100).seconds(1) == pytest.approx(2.4, rel=0.05)
