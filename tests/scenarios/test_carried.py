"""Two hops that cannot reach each other: their client carries the steps of the second."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pnode.lab.swarm import LocalSwarm
from tests.scenarios.test_failover import NUM_TOKENS, PROMPT, tokens_of
from tests.support.models import greedy

LATENCY_S = 0.02

pytestmark = pytest.mark.virtual_time


@pytest.mark.parametrize("pairs", [[(0, 1)], [(1, 2)], [(0, 1), (1, 2)]])
async def test_the_client_carries_what_cannot_go_directly(
    pairs: list[tuple[int, int]], tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        for first, second in pairs:
            swarm.network.partition([nodes[first].peer], [nodes[second].peer])
        async with swarm.client() as client:
            made, done = await tokens_of(client)
    assert made == greedy(tiny, PROMPT, NUM_TOKENS)
    carried = [(index - 1, index) for index, hop in enumerate(done.chain.hops) if hop.is_carried]
    assert carried == pairs


async def test_a_way_that_breaks_in_mid_session_is_gone_around(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")

        def act(count: int) -> None:
            if count == 4:
                swarm.network.partition([nodes[0].peer], [nodes[1].peer])

        async with swarm.client() as client:
            made, done = await tokens_of(client, act, 24)
    assert made == greedy(tiny, PROMPT, 24)
    assert [hop.is_carried for hop in done.chain.hops] == [False, True, False]


async def test_a_carried_hop_that_dies_is_replaced(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        swarm.network.partition([nodes[0].peer], [nodes[1].peer])
        started = []

        def act(count: int) -> None:
            if count == 8:
                swarm.kill(nodes[1])

        async with swarm.client() as client:
            await tokens_of(client)
            started += await swarm.start("3-5")
            made, done = await tokens_of(client, act, 20)
    assert made == greedy(tiny, PROMPT, 20)
    assert done.chain.hops[1].peer == started[0].peer
    assert not done.chain.hops[1].is_carried
