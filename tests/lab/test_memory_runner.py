"""The lab in memory: the same scenario gives the same run, and what it says of it is so."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from pathlib import Path

import pytest

from p2pnode.errors import BadRequest
from p2pnode.lab.memory_runner import noted_failures, run_in_memory
from p2pnode.lab.presets import Link
from p2pnode.lab.scenario import Fault, FaultKind, Moment, Nat, Node, Request, Scenario, Where
from p2pnode.lab.scenario_file import load_scenario
from p2pnode.types import LayerRange
from tests.lab.test_scenario_file import IN_MEMORY

DELAY_MS = 20.0


def two_hops(*, count: int = 2, compute_ms: float = 0.0, nat: Nat = Nat.NONE) -> Scenario:
    nodes = tuple(
        Node(
            name=name,
            layers=LayerRange(start, start + 2),
            count=count,
            compute_ms=compute_ms,
            nat=nat,
        )
        for name, start in (("a", 0), ("b", 2))
    )
    request = Request(prompt_tokens=8, max_tokens=10)
    return Scenario(name="two-hops", nodes=nodes, client=request, link=Link(delay_ms=DELAY_MS))


def with_fault(scenario: Scenario, kind: FaultKind, at: Moment, **where: int | str) -> Scenario:
    return dataclasses.replace(scenario, faults=(Fault(kind=kind, at=at, **where),))  # type: ignore[arg-type]


@pytest.mark.parametrize("file", IN_MEMORY, ids=lambda file: file.stem)
def test_the_examples_end_with_the_right_tokens(file: Path, cache: Path) -> None:
    trial = run_in_memory(load_scenario(file), cache)
    assert trial.error is None
    assert (trial.identical, trial.failed, trial.hung) == (True, False, False)
    assert trial.failovers >= 1


def test_a_loop_takes_what_its_links_and_hops_take(cache: Path) -> None:
    trial = run_in_memory(two_hops(compute_ms=30.0), cache)
    assert trial.identical
    assert trial.loop_ms == pytest.approx(2 * DELAY_MS + 2 * 30.0)
    assert (trial.fault, trial.hop, trial.where, trial.detection_ms) == (None, None, None, None)
    assert trial.stall_ms < 1.0


def test_a_victim_is_named_by_its_place_in_the_chain(cache: Path) -> None:
    at = Moment(where=Where.IN_FLIGHT, token=4)
    trial = run_in_memory(with_fault(two_hops(), FaultKind.KILL, at, hop=1), cache, commit="c1")
    assert (trial.fault, trial.hop, trial.where, trial.token) == ("kill", 1, "in-flight", 4)
    assert trial.identical
    assert trial.failovers == 1
    assert trial.detection_ms is not None
    assert trial.detection_ms == pytest.approx(DELAY_MS)
    assert (trial.transport, trial.commit, trial.tokens) == ("memory", "c1", 10)


def test_nobody_left_is_a_failed_trial_that_says_why(cache: Path) -> None:
    at = Moment(where=Where.DECODE, token=4)
    scenario = with_fault(two_hops(count=1), FaultKind.KILL, at, hop=1)
    trial = run_in_memory(scenario, cache)
    assert (trial.failed, trial.identical, trial.hung, trial.tokens) == (True, False, False, 4)
    assert "no live peer serves layers 2-3" in str(trial.error)


def test_a_fault_that_never_comes_is_a_failed_trial(cache: Path) -> None:
    at = Moment(where=Where.DECODE, token=4)
    trial = run_in_memory(with_fault(two_hops(), FaultKind.KILL, at, hop=5), cache)
    assert trial.failed
    assert trial.error == "a fault of the scenario never happened"
    assert trial.identical


def test_the_same_seed_gives_the_same_run_and_another_one_another(cache: Path) -> None:
    at = Moment(where=Where.DECODE, token=3)
    stormy = Link(delay_ms=DELAY_MS, jitter=0.5, loss=0.05)
    scenario = dataclasses.replace(two_hops(), link=stormy)
    scenario = with_fault(scenario, FaultKind.LOSS, at, hop=0)
    first, again = (run_in_memory(scenario, cache) for _ in range(2))
    assert first == again
    assert run_in_memory(dataclasses.replace(scenario, seed=1), cache) != first


def test_there_is_no_nat_in_memory(cache: Path) -> None:
    with pytest.raises(BadRequest, match="use --transport namespaces"):
        run_in_memory(two_hops(nat=Nat.CONE), cache)


@pytest.mark.parametrize(("offset_s", "is_served"), [(4.5, True), (5.5, False), (-70.0, False)])
def test_a_node_with_a_wrong_clock_is_not_used(
    offset_s: float, is_served: bool, cache: Path
) -> None:
    scenario = two_hops(count=1)
    nodes = (scenario.nodes[0], dataclasses.replace(scenario.nodes[1], clock_offset_s=offset_s))
    trial = run_in_memory(dataclasses.replace(scenario, nodes=nodes), cache)
    assert trial.identical is is_served
    assert trial.failed is not is_served


def test_other_warnings_of_the_pipeline_are_no_failures() -> None:
    noted: list[float] = []
    log = logging.getLogger("p2pnode.pipeline.somewhere")
    with noted_failures(lambda: noted.append(1.0)):
        log.warning("something else: peer=%s", "x")
        assert noted == []
        log.warning("hop failed: peer=%s", "x")
        assert noted == [1.0]
    log.warning("hop failed: peer=%s", "x")
    assert noted == [1.0]


def test_a_run_leaves_no_loop_behind(cache: Path) -> None:
    run_in_memory(two_hops(), cache)
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
