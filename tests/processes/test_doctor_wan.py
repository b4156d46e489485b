"""``p2pnode doctor`` in a network namespace, among real nodes of which one is far away."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest

from p2pnode.lab.presets import Link
from p2pnode.lab.wan.launcher import Launch
from p2pnode.lab.wan.machines import Duty
from p2pnode.lab.wan.packets import Line
from p2pnode.lab.wan.swarm import BOOTSTRAP, Place, WanSwarm
from p2pnode.types import LayerRange
from tests.lab.test_wan_network import needs_namespaces

pytestmark = [pytest.mark.processes, needs_namespaces]

NEAR_S, FAR_S = 0.005, 0.3
ANSWER_WITHIN_S = 60.0
NAMES = (BOOTSTRAP, "near", "far", "doctor")


async def doctor(swarm: WanSwarm, home: str) -> dict[str, Any]:
    launch = Launch(
        module="p2pnode",
        arguments=("doctor", "--json", "--home", home, "--join", swarm.machines[BOOTSTRAP].address),
        namespace=swarm.network.namespace("doctor").name,
    )
    program = await swarm.run("doctor", launch)
    async with asyncio.timeout(ANSWER_WITHIN_S):
        async for told in program.heard():
            return told
    raise AssertionError("it said nothing")


async def test_the_node_that_is_far_away_is_named(tiny: Path) -> None:
    async with WanSwarm() as swarm:
        for name in NAMES:
            await swarm.place(name, Place(link=Link()))
        await swarm.serve(BOOTSTRAP, Duty(layers=None))
        for name, layers in (("near", "0-3"), ("far", "4-8")):
            duty = Duty(layers=LayerRange.parse(layers), model=str(tiny))
            await swarm.serve(name, duty)
        pairs = itertools.permutations(NAMES, 2)
        await swarm.network.set_lines(
            {pair: Line(delay_s=FAR_S if "far" in pair else NEAR_S) for pair in pairs}
        )
        with tempfile.TemporaryDirectory(prefix="p2pnode-") as home:
            told = await doctor(swarm, home)
        assert (told["cause"], told["peer"]) == ("network", swarm.machines["far"].peer), told
        assert told["doctor_s"] < 15.0
        by_peer = {hop["peer"]: hop for hop in told["chain"]["hops"]}
        assert by_peer[swarm.machines["far"].peer]["rtt_s"] == pytest.approx(2 * FAR_S, rel=0.2)
        assert by_peer[swarm.machines["near"].peer]["rtt_s"] < 0.1
