"""What was seen of a run comes to the same figures on every transport."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from p2pnode.lab.reference import Task
from p2pnode.lab.result import TRANSPORTS
from p2pnode.lab.scenario import Fault, FaultKind, Moment, Node, Request, Scenario, Where
from p2pnode.lab.seen import Seen
from p2pnode.types import LayerRange, ModelSpec, Sampling

FAULT = Fault(kind=FaultKind.SLOW, at=Moment(where=Where.DECODE, token=40), hop=1)
GAPS_S = [0.1] * 40 + [0.5, 0.5, 0.5, 0.5] + [0.12] * 40
SPEC = ModelSpec(
    name="tiny",
    fingerprint="0" * 64,
    family="llama",
    num_layers=6,
    hidden_size=32,
    vocab_size=512,
    max_positions=1024,
)


def seen(*faults: Fault) -> Seen:
    nodes = (Node(name="all", layers=LayerRange(0, 6), count=2),)
    scenario = Scenario(name="slow", nodes=nodes, client=Request(), faults=faults)
    task = Task(
        folder=Path(),
        spec=SPEC,
        prompt_ids=(1,),
        max_tokens=84,
        sampling=Sampling(),
        expected=tuple(range(84)),
    )
    run = Seen(scenario, task)
    run.token_ids += range(84)
    run.token_times_s += itertools.accumulate(GAPS_S)
    return run


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_slow_hop_is_recovered_from_after_so_many_tokens(transport: str) -> None:
    run = seen(FAULT)
    run.faults.append((FAULT, run.token_times_s[39], 1))
    run.failures_s += [1.0, run.token_times_s[39] + 0.25, 20.0]
    trial = run.trial(transport, "abc")
    assert (trial.transport, trial.fault, trial.hop) == (transport, "slow", 1)
    assert (trial.identical, trial.failed, trial.recovery_steps) == (True, False, 3)
    assert (trial.loop_ms, trial.stall_ms, trial.detection_ms) == (100.0, 400.0, 250.0)


def test_a_fault_that_never_happened_is_a_failure() -> None:
    trial = seen(FAULT).trial("memory", "abc")
    assert trial.failed
    assert trial.error == "a fault of the scenario never happened"
    assert (trial.fault, trial.recovery_steps, trial.detection_ms) == ("slow", None, None)
