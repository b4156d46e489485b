"""One trial on real processes in namespaces: a hop is killed, and the text stays the same."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest

from p2pnode.lab.presets import Link
from p2pnode.lab.scenario import Fault, FaultKind, Moment, Node, Request, Scenario, Where
from p2pnode.lab.wan import kernel
from p2pnode.lab.wan.namespaces import PREFIX
from p2pnode.lab.wan.runner import WanLab
from p2pnode.types import LayerRange
from tests.lab.test_wan_network import needs_namespaces

NUM_TOKENS = 16
KILLED_AT = 8
GONE_WITHIN_S = 5.0

pytestmark = [pytest.mark.processes, needs_namespaces]


def scenario(*faults: Fault) -> Scenario:
    """Three hops 5 ms apart, of which only the middle one may die."""
    return Scenario(
        name="kill",
        model="tiny",
        link=Link(delay_ms=5),
        nodes=(
            Node(name="first", layers=LayerRange(0, 2)),
            Node(name="middle", layers=LayerRange(2, 4), count=2),
            Node(name="last", layers=LayerRange(4, 6)),
        ),
        client=Request(max_tokens=NUM_TOKENS, temperature=0.8, seed=5),
        faults=faults,
    )


async def test_a_real_hop_is_killed_in_mid_answer_and_the_tokens_are_those_of_the_unsplit_model(
    cache: Path,
) -> None:
    fault = Fault(kind=FaultKind.KILL, at=Moment(where=Where.DECODE, token=KILLED_AT), hop=1)
    others = psutil.Process().children(recursive=True)
    async with WanLab(cache, commit="test") as lab:
        trial = await lab.run(scenario(fault))
        children = set(psutil.Process().children(recursive=True)) - set(others)
    assert trial.error is None
    assert (trial.transport, trial.fault, trial.hop) == ("namespaces", "kill", 1)
    assert (trial.identical, trial.hung, trial.tokens) == (True, False, NUM_TOKENS)
    assert trial.failovers >= 1
    assert trial.detection_ms is not None
    # Four delays and three blocks, at least; a death costs more than a token.
    assert trial.loop_ms > 20.0
    assert trial.stall_ms > 0.0
    _, left = await asyncio.to_thread(psutil.wait_procs, children, GONE_WITHIN_S)
    assert [child for child in left if child.status() != "zombie"] == []
    ours = [path.name for path in kernel.NAMESPACES.iterdir()]
    assert not any(name.startswith(f"{PREFIX}-{psutil.Process().pid}-") for name in ours)
