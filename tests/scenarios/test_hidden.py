"""Chains of nodes that nobody can dial: they come when they are asked to, or the client carries."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from p2pnode.lab.swarm import LocalSwarm
from p2pnode.net.memory import fake_peer_id
from tests.scenarios.test_failover import NUM_TOKENS, PROMPT, tokens_of
from tests.support.models import greedy

LATENCY_S = 0.02
HELPER, SLOW_S = "0-0", 5.0
"""What the one that everybody can dial serves, and its time for a step: in no chain it helps."""
LEARNT_AFTER_S = 60.0
"""By then everybody has been asked to dial back, and has announced what came of it."""

MET_AFTER_S = 2.0
"""By then a client has met a neighbour. In a real swarm it has by joining."""

pytestmark = pytest.mark.virtual_time


@pytest.mark.parametrize(
    ("hidden", "carried"),
    [
        ((1,), []),
        ((0, 2), []),
        ((0, 1), [(0, 1)]),
        ((0, 1, 2), [(0, 1), (1, 2)]),
    ],
)
async def test_a_chain_of_nodes_that_cannot_be_dialled_serves(
    hidden: tuple[int, ...], carried: list[tuple[int, int]], tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        for index in hidden:
            swarm.network.hide(fake_peer_id(index))
        nodes = await swarm.start("0-2", "3-5", "6-8")
        await swarm.start(HELPER, latency_s=SLOW_S)
        await asyncio.sleep(LEARNT_AFTER_S)
        async with swarm.client() as client:
            await asyncio.sleep(MET_AFTER_S)
            made, done = await tokens_of(client)
    assert made == greedy(tiny, PROMPT, NUM_TOKENS)
    assert [hop.peer for hop in done.chain.hops] == [node.peer for node in nodes]
    assert [bool(hop.addresses) for hop in done.chain.hops] == [
        index not in hidden for index in range(3)
    ]
    found = [(index - 1, index) for index, hop in enumerate(done.chain.hops) if hop.is_carried]
    assert found == carried


async def test_what_could_not_connect_is_remembered(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        for index in range(3):
            swarm.network.hide(fake_peer_id(index))
        await swarm.start("0-2", "3-5", "6-8")
        await swarm.start(HELPER, latency_s=SLOW_S)
        await asyncio.sleep(LEARNT_AFTER_S)
        clock = asyncio.get_running_loop().time
        async with swarm.client() as client:
            await asyncio.sleep(MET_AFTER_S)
            await tokens_of(client)
            began = clock()
            made, done = await tokens_of(client)
            took_s = clock() - began
    assert made == greedy(tiny, PROMPT, NUM_TOKENS)
    assert done.failovers == 0
    # Opening, then per token: to the first, two ways around, and back.
    assert took_s <= (NUM_TOKENS + 2) * 6 * LATENCY_S
