"""A client that goes away without a word: every hop is free again within five seconds."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from p2pnode.client.events import Token
from p2pnode.lab.swarm import LocalSwarm

pytestmark = pytest.mark.virtual_time

PROMPT = [1, 403, 407, 261]


@pytest.mark.parametrize("how", ["silence", "partition", "freeze"])
async def test_hops_of_a_client_that_vanishes_are_freed_within_five_seconds(
    how: str, tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        async with (
            swarm.client() as client,
            aclosing(client.stream(PROMPT, max_tokens=32)) as events,
        ):
            async for event in events:
                if isinstance(event, Token):
                    break
            assert [node.open_hops.total() for node in nodes] == [1, 1, 1]
            peer = swarm.client_peers[0]
            match how:
                case "silence":
                    for node in nodes:
                        swarm.network.silence(peer, node.peer)
                case "partition":
                    swarm.network.partition([peer], [node.peer for node in nodes])
                case "freeze":
                    swarm.network.freeze(peer)
            await asyncio.sleep(5.0)
            assert [node.open_hops.total() for node in nodes] == [0, 0, 0]
            swarm.network.heal()
            swarm.network.thaw(peer)
