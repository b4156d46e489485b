"""What is told of generations: which way they take, and where the time of a step goes."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from p2pnode.client.client import Client
from p2pnode.client.events import Token
from p2pnode.client.runs import CANCELLED, DONE, FAILED, MAX_ENDED, RUNNING
from p2pnode.errors import NoChain
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.types import LayerRange

PROMPT = [5, 6, 7, 8]
ONE_WAY_S = 0.02
COMPUTE_S = 0.01


def near(value: float, wanted: float) -> bool:
    return abs(value - wanted) < 0.003


async def read(client: Client, num_tokens: int) -> None:
    """The first tokens of an answer, and then hang up."""
    async with aclosing(client.stream(PROMPT, max_tokens=20)) as events:
        num_seen = 0
        async for event in events:
            num_seen += isinstance(event, Token)
            if num_seen == num_tokens:
                return


@pytest.mark.virtual_time
async def test_a_running_request_shows_where_each_millisecond_goes(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=ONE_WAY_S) as swarm:
        for layers in ("0-2", "3-5", "6-8"):
            node = swarm.add(LayerRange.parse(layers), compute_s=COMPUTE_S)
            await node.is_serving.wait()
        async with swarm.client() as client:
            async with aclosing(client.stream(PROMPT, max_tokens=20)) as events:
                async for event in events:
                    if isinstance(event, Token) and event.position == len(PROMPT) + 12:
                        (run,) = client.seen.runs.snapshot()
                        assert run.outcome == RUNNING
                        assert (run.prompt_tokens, run.num_tokens) == (4, 13)
                        assert [str(hop.layers) for hop in run.hops] == ["0-2", "3-5", "6-8"]
                        assert all(near(hop.compute_s, COMPUTE_S) for hop in run.hops)
                        ways = [hop.way_s or 0.0 for hop in run.hops]
                        step_s = sum(ways) + sum(h.queue_s + h.compute_s for h in run.hops)
                        assert near(sum(ways), 3 * ONE_WAY_S)
                        assert near(step_s, 1 / run.tokens_per_s)
            (run,) = client.seen.runs.snapshot()
            assert (run.outcome, run.num_tokens, client.seen.runs.num_tokens) == (DONE, 20, 20)


@pytest.mark.virtual_time
async def test_how_a_request_ended_is_told(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache) as swarm:
        (node,) = await swarm.start("0-8")
        async with swarm.client() as client:
            await client.generate(PROMPT, max_tokens=3)
            await read(client, 2)
            stream = client.stream(PROMPT, max_tokens=20)
            await anext(stream)
            swarm.kill(node)
            with pytest.raises(NoChain):
                async with aclosing(stream) as events:
                    async for _ in events:
                        pass
            outcomes = [run.outcome for run in client.seen.runs.snapshot()]
            assert outcomes == [FAILED, CANCELLED, DONE]


@pytest.mark.virtual_time
async def test_only_the_last_requests_are_kept(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache) as swarm:
        await swarm.start("0-8")
        async with swarm.client() as client, asyncio.TaskGroup() as group:
            for number in range(MAX_ENDED + 3):
                group.create_task(client.generate([5, number + 1], max_tokens=2))
        assert len(client.seen.runs.snapshot()) == MAX_ENDED
        assert client.seen.runs.num_tokens == 2 * (MAX_ENDED + 3)


@pytest.mark.virtual_time
async def test_a_request_through_nobody_has_no_hops(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache) as swarm:
        (node,) = await swarm.start("0-8")
        async with swarm.client() as client:
            swarm.kill(node)
            with pytest.raises(NoChain):
                await client.generate(PROMPT, max_tokens=2)
            (run,) = client.seen.runs.snapshot()
            assert (run.outcome, run.ttft_s) == (FAILED, None)
