"""The swarm as a client shows it: a death is seen at once, before it is settled."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from p2pnode.client.client import Client
from p2pnode.client.picture import picture
from p2pnode.lab.swarm import LocalSwarm


def liveness(client: Client) -> dict[str, str]:
    """Of each peer, as the page shows it."""
    return {p["peer"]: p["health"]["liveness"] for p in picture(client.seen.observed())["peers"]}


@pytest.mark.virtual_time
@pytest.mark.parametrize("num_nodes", [1, 4])
async def test_who_stops_answering_is_shown_as_suspect_within_a_second(
    tiny: Path, cache: Path, num_nodes: int
) -> None:
    config = {"gossip_neighbours": 24}
    async with LocalSwarm(tiny, cache=cache, latency_s=0.02, config=config) as swarm:
        nodes = await swarm.start(*["0-8"] * num_nodes)
        async with swarm.client() as client:
            await asyncio.sleep(10)
            for node in nodes:
                assert liveness(client)[node.peer] == "alive"
                swarm.kill(node)
                await asyncio.sleep(1)
                assert liveness(client)[node.peer] in ("suspect", "dead")
