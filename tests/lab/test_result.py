"""What a lab says of its runs: figures that can be checked by hand, and JSON that is believed."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import pytest

from p2pnode.errors import BadRequest
from p2pnode.lab.result import Spread, Summary, Trial
from p2pnode.lab.timing import pace, recovery_steps

TRIAL = Trial(
    scenario="kill-hop-1-token-5",
    transport="memory",
    fault="kill",
    hop=1,
    where="decode",
    token=5,
    seed=0,
    temperature=0.0,
    standby=True,
    identical=True,
    failed=False,
    hung=False,
    failovers=1,
    stall_ms=250.0,
    loop_ms=100.0,
    detection_ms=20.5,
    tokens=64,
)


def changed(**changes: Any) -> str:
    values = {**dataclasses.asdict(TRIAL), **changes}
    return json.dumps({name: value for name, value in values.items() if value != "left out"})


def test_a_trial_comes_back_from_its_line() -> None:
    line = TRIAL.to_json()
    assert "\n" not in line
    assert Trial.from_json(line) == TRIAL
    nothing = dataclasses.replace(TRIAL, fault=None, hop=None, detection_ms=None, error="x")
    assert Trial.from_json(nothing.to_json()) == nothing


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "{}",
        "{" * 5000,
        changed(tokens="left out"),
        changed(more=1),
        changed(tokens=True),
        changed(tokens=1.5),
        changed(identical=1),
        changed(stall_ms=None),
        changed(stall_ms=float("nan")),
        changed(transport="pigeons"),
        changed(scenario=None),
    ],
)
def test_a_line_that_is_no_trial_is_refused(line: str) -> None:
    with pytest.raises(BadRequest, match="a lab result"):
        Trial.from_json(line)


def test_the_stall_is_the_longest_gap_after_the_fault_minus_the_median_token() -> None:
    measured = pace([1.0, 1.1, 1.2, 1.3, 2.3, 2.4], fault_at_s=1.35)
    assert measured.loop_ms == pytest.approx(100)
    assert measured.stall_ms == pytest.approx(900)


def test_a_gap_before_the_fault_is_no_stall() -> None:
    measured = pace([1.0, 1.1, 3.0, 3.1, 3.2, 3.3], fault_at_s=3.25)
    assert measured.stall_ms == pytest.approx(0, abs=1e-6)


def test_a_fault_in_prefill_stalls_the_first_token() -> None:
    measured = pace([5.0, 5.1, 5.2, 5.3], fault_at_s=2.0)
    assert measured.stall_ms == pytest.approx(2900)


def test_a_pace_has_recovered_when_the_tokens_that_follow_come_as_before() -> None:
    times = list(itertools.accumulate([0.1] * 40 + [0.5, 0.5, 0.5, 0.5] + [0.12] * 40))
    # One slow token in 32 is within the 95 %; two are not.
    assert recovery_steps(times, times[39]) == 3
    assert recovery_steps(times[:60], times[39]) is None
    assert recovery_steps(times, times[20]) is None


def test_without_tokens_there_is_no_stall() -> None:
    assert pace([], 1.0).stall_ms == pace([1.0], None).stall_ms == 0.0


def test_percentiles_are_values_that_occurred() -> None:
    assert Spread.of([]) == Spread()
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(p50=2.0, p95=3.0, max=3.0)
    assert Spread.of([float(each) for each in range(1, 101)]) == Spread(p50=50, p95=95, max=100)


def test_a_summary_counts_and_leaves_the_times_of_those_that_broke_out() -> None:
    hung = dataclasses.replace(TRIAL, hung=True, identical=False, stall_ms=1e6, detection_ms=None)
    failed = dataclasses.replace(TRIAL, failed=True, identical=False, loop_ms=1e6)
    summary = Summary.of([TRIAL, hung, failed])
    assert (summary.trials, summary.identical, summary.failed, summary.hung) == (3, 1, 1, 1)
    assert summary.stall_ms == Spread(p50=250.0, p95=250.0, max=250.0)
    assert (summary.loop_ms, summary.detection_ms) == (100.0, 20.5)
    assert Summary.of([]).detection_ms is None
