"""What nodes say of themselves reaches clients, with the directory's view."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from p2pnode.client.client import Client
from p2pnode.client.events import Token
from p2pnode.lab.swarm import LabNode, LocalSwarm
from p2pnode.types import Health, Liveness

pytestmark = pytest.mark.virtual_time

PROMPT = [1, 403, 407, 261]


def seen(client: Client, node: LabNode) -> Health:
    """What the client's view says of a node that it believes alive."""
    known = client._reader.known().health[node.peer]
    assert known.liveness is Liveness.ALIVE
    return known.health


async def test_a_client_sees_the_load_and_the_times_of_each_node(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        async with swarm.client() as client:
            await asyncio.sleep(6)
            idle = [seen(client, node) for node in nodes]
            assert [health.num_sessions for health in idle] == [0, 0, 0]
            async with aclosing(client.stream(PROMPT, max_tokens=32)) as events:
                async for event in events:
                    if isinstance(event, Token) and event.position > 8:
                        break
                await asyncio.sleep(4)
                for node, before in zip(nodes, idle, strict=True):
                    now = seen(client, node)
                    assert now.num_sessions == 1
                    assert (now.kv_free_tokens or 0) < (before.kv_free_tokens or 0)
                    assert [tokens for tokens, *_ in now.step_times] == [1, len(PROMPT), 64], (
                        "64: measured when it was loaded"
                    )
                    assert now.sequence > before.sequence


async def test_a_client_soon_knows_that_a_node_is_dead(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01) as swarm:
        first, *_ = await swarm.start("0-8", "0-8", "0-8", "0-8")
        async with swarm.client() as client:
            await asyncio.sleep(6)
            swarm.kill(first)
            await asyncio.sleep(3)
            known = client._reader.known()
            assert first.peer in {each.peer for each in known.announcements}, "not yet expired"
            assert known.health[first.peer].liveness is not Liveness.ALIVE
            await asyncio.sleep(7)
            assert client._reader.known().health[first.peer].liveness is Liveness.DEAD
