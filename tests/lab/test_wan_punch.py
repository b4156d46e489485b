"""Real nodes behind real NATs: a chain of them is direct where holes can be punched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from p2pnode.lab.reference import Task, prepare
from p2pnode.lab.scenario import CLIENT, Nat, Scenario
from p2pnode.lab.scenario_file import load_scenario
from p2pnode.lab.wan.machines import Duty
from p2pnode.lab.wan.network import line_of
from p2pnode.lab.wan.runner import request_of
from p2pnode.lab.wan.swarm import BOOTSTRAP, Place, WanSwarm
from p2pnode.lab.wan.worker import Join
from tests.lab.test_wan_network import needs_namespaces

ATTEMPTS = 3
SCENARIO = Path(__file__).parent / "scenarios" / "punch.toml"

pytestmark = [pytest.mark.processes, needs_namespaces]


async def test_two_cone_nats_are_punched_and_what_symmetric_ones_keep_apart_is_carried(
    cache: Path,
) -> None:
    scenario = load_scenario(SCENARIO)
    task = await asyncio.to_thread(prepare, scenario, cache)
    # The client feeds the first hop, which itself feeds the second: not carried, so direct.
    assert [False, False, True, True] in [each async for each in chains(scenario, task)]


async def chains(scenario: Scenario, task: Task) -> AsyncIterator[list[bool]]:
    """Who is carried, in new swarms until nobody is who need not be.

    Both sides dial for 1.5 s, which a machine with other things to do may not give them.
    """
    for _ in range(ATTEMPTS):
        async with WanSwarm(seed=scenario.seed) as swarm:
            await settle(swarm, scenario, str(task.folder))
            join = Join(join=(), home="", model=str(task.folder), standby=False)
            client = await swarm.client(CLIENT, join)
            async with aclosing(client.generate(request_of(task))) as events:
                heard = [event async for event in events]
        assert heard[-1]["event"] == "done", heard[-1]
        assert tuple(heard[-1]["token_ids"]) == task.expected
        yield carried(heard)
        if not carried(heard)[1]:
            return


async def settle(swarm: WanSwarm, scenario: Scenario, model: str) -> None:
    """Start the bootstrap node and the nodes, and give the client its place."""
    names = [BOOTSTRAP, *scenario.members, CLIENT]
    for name in names:
        nat = scenario.members[name].nat if name in scenario.members else Nat.NONE
        await swarm.place(name, Place(link=scenario.link, nat=nat.value))
    line = line_of(scenario.way("first", "last"))
    await swarm.network.set_lines({(a, b): line for a in names for b in names if a != b})
    await swarm.serve(BOOTSTRAP, Duty(layers=None))
    for name, node in scenario.members.items():
        await swarm.serve(name, Duty(layers=node.layers, model=model))


def carried(heard: list[dict[str, Any]]) -> list[bool]:
    """For each hop of the last chain whether the client brings its input."""
    chain = [event for event in heard if event["event"] == "chain"][-1]
    return [hop["is_carried"] for hop in chain["hops"]]
