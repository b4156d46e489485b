"""Faults that show only after a while: wrong clocks, full disks, links that vary."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from p2pnode.lab.jitter import run_jitter
from p2pnode.lab.memory_runner import run_in_memory
from p2pnode.lab.presets import Link
from p2pnode.lab.scenario import Fault, FaultKind, Moment, Node, Request, Scenario, Where
from p2pnode.types import LayerRange

NODES = tuple(
    Node(name=name, layers=LayerRange(start, start + 1), count=2)
    for name, start in (("first", 0), ("last", 1))
)
TWO_MINUTES = Scenario(
    name="two-minutes",
    nodes=NODES,
    client=Request(prompt_tokens=4, max_tokens=90),
    link=Link(delay_ms=400),
)
"""Longer than announcements live."""


def fault(kind: FaultKind, offset_s: float = 0.0) -> Scenario:
    at = Moment(where=Where.DECODE, token=5)
    made = Fault(kind=kind, at=at, hop=1, offset_s=offset_s)
    return dataclasses.replace(TWO_MINUTES, faults=(made,))


@pytest.mark.parametrize("offset_s", [300.0, -300.0])
def test_a_session_does_not_notice_that_a_clock_has_jumped(offset_s: float, cache: Path) -> None:
    trial = run_in_memory(fault(FaultKind.CLOCK, offset_s), cache)
    assert trial.identical
    assert trial.failovers == 0
    assert trial.stall_ms < trial.loop_ms


def test_a_full_disk_does_not_stop_a_node_that_serves(cache: Path) -> None:
    trial = run_in_memory(fault(FaultKind.DISK_FULL), cache)
    assert trial.identical
    assert trial.failovers == 0
    assert trial.stall_ms < trial.loop_ms


def test_jitter_changes_no_token(cache: Path) -> None:
    calm = run_jitter(0.5, cache, minutes=0.25)
    assert (calm.requests, calm.right) == (calm.right, calm.requests)
    assert calm.requests >= 2
