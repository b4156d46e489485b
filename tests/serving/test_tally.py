"""What a node counts of its own work."""

from __future__ import annotations

import pytest

from p2pnode.serving.tally import ERRORS_FOR_S, Tally


def test_compute_times_are_kept_by_the_tokens_of_a_forward() -> None:
    tally = Tally()
    for index in range(100):
        tally.forward(1, 0.010 if index % 10 else 0.050)
        tally.forward(32, 0.2)
    assert tally.step_times() == ((1, 0.010, 0.050), (32, 0.2, 0.2))
    assert tally.busy_s == pytest.approx(90 * 0.010 + 10 * 0.050 + 100 * 0.2)


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
