"""Sessions that share peers, end early, or are refused."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from p2pnode.client.events import Done, Token
from p2pnode.errors import BadRequest, NoChain, PromptTooLong
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.types import Sampling
from tests.support.models import greedy

PROMPTS = [[1, 400 + index, 261 + 3 * index, 31] + [70 + index] * index for index in range(8)]

pytestmark = pytest.mark.virtual_time


async def test_eight_clients_at_once_each_get_their_own_text(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        answers: list[list[int]] = [[] for _ in PROMPTS]

        async def ask(index: int) -> None:
            async with swarm.client() as client:
                done = await client.generate(PROMPTS[index], max_tokens=8)
                answers[index] = list(done.token_ids)

        async with asyncio.TaskGroup() as tasks:
            for index in range(len(PROMPTS)):
                tasks.create_task(ask(index))
        opened = [event for event, _ in nodes[1].events if event == "session_opened"]
    assert answers == [greedy(tiny, prompt, 8) for prompt in PROMPTS]
    assert len(opened) == len(PROMPTS)


async def test_seeded_text_does_not_depend_on_the_chain_or_on_a_death(
    tiny: Path, cache: Path
) -> None:
    sampling = Sampling(temperature=1.0, top_p=0.95, repetition_penalty=1.3, seed=7)
    texts = []
    for ranges in (["0-8"], ["0-2", "3-5", "6-8"], ["0-0", "1-7", "8-8"]):
        async with LocalSwarm(tiny, cache=cache, latency_s=0.01) as swarm:
            await swarm.start(*ranges)
            async with swarm.client() as client:
                done = await client.generate(PROMPTS[3], max_tokens=12, sampling=sampling)
                texts.append(done.token_ids)
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01) as swarm:
        nodes = await swarm.start("0-2", "3-8")
        await swarm.start("3-8", latency_s=0.5)
        async with swarm.client() as client:
            made = []
            async for event in client.stream(PROMPTS[3], max_tokens=12, sampling=sampling):
                if isinstance(event, Token):
                    made.append(event.token_id)
                    if len(made) == 5:
                        swarm.kill(nodes[1])
    assert texts == [tuple(made)] * 3
    other = Sampling(temperature=1.0, top_p=0.95, repetition_penalty=1.3, seed=8)
    async with LocalSwarm(tiny, cache=cache) as swarm:
        await swarm.start("0-8")
        async with swarm.client() as client:
            again = await client.generate(PROMPTS[3], max_tokens=12, sampling=other)
    assert again.token_ids != texts[0]


@pytest.mark.parametrize("dies", [False, True])
async def test_a_local_head_gives_the_same_text_and_no_peer_sees_token_ids(
    dies: bool, tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        await swarm.start("0-8", latency_s=0.5)
        made = []
        async with swarm.client(head="local") as client:
            async for event in client.stream(PROMPTS[2], max_tokens=8):
                if isinstance(event, Token):
                    made.append(event.token_id)
                    if dies and len(made) == 3:
                        swarm.kill(nodes[2])
    assert made == greedy(tiny, PROMPTS[2], 8)


async def test_leaving_the_stream_frees_every_hop_at_once(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        async with swarm.client() as client:
            async with aclosing(client.stream(PROMPTS[0], max_tokens=100)) as events:
                async for event in events:
                    if isinstance(event, Token) and event.position == len(PROMPTS[0]) + 2:
                        break
            await asyncio.sleep(0.02)
            for node in nodes:
                assert [event for event, _ in node.events][-1] == "session_closed"


async def test_a_cancelled_task_frees_every_hop_at_once(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        async with swarm.client() as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await client.generate(PROMPTS[0], max_tokens=200)
            await asyncio.sleep(0.02)
            for node in nodes:
                assert [event for event, _ in node.events][-1] == "session_closed"


async def test_a_client_that_dies_frees_every_hop(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        async with swarm.client() as client:
            with pytest.raises(NoChain):
                async for event in client.stream(PROMPTS[0], max_tokens=100):
                    if isinstance(event, Token) and event.position == len(PROMPTS[0]) + 2:
                        swarm.network.kill(swarm.client_peers[0])
        await asyncio.sleep(0.1)
        for node in nodes:
            assert [event for event, _ in node.events][-1] == "session_closed"


async def test_a_full_peer_refuses_and_serves_again_when_there_is_room(
    tiny: Path, cache: Path
) -> None:
    config = {"max_sessions": 1, "no_chain_patience_s": 60.0}
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01, config=config) as swarm:
        await swarm.start("0-8")
        done: list[Done] = []

        async def ask(index: int) -> None:
            async with swarm.client() as client:
                done.append(await client.generate(PROMPTS[index], max_tokens=20))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ask(0))
            tasks.create_task(ask(1))
    assert sorted(each.token_ids for each in done) == sorted(
        tuple(greedy(tiny, PROMPTS[index], 20)) for index in (0, 1)
    )


async def test_bad_requests_are_the_callers_error(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache) as swarm:
        await swarm.start("0-8")
        async with swarm.client() as client:
            with pytest.raises(BadRequest, match="empty"):
                await client.generate("")
            with pytest.raises(BadRequest, match="empty"):
                await client.generate([])
            with pytest.raises(BadRequest, match="token ids must be"):
                await client.generate([1, 512])
            with pytest.raises(PromptTooLong, match="256"):
                await client.generate([1] * 256)
            with pytest.raises(BadRequest, match="max_tokens"):
                await client.generate([1], max_tokens=0)


async def test_nobody_serving_is_no_chain(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache) as swarm:
        with pytest.raises(NoChain, match="serves no model"):
            async with swarm.client():
                pass


@pytest.mark.parametrize("pause_s", [5.0, 70.0, 300.0])
async def test_a_reader_may_pause_for_longer_than_the_nodes_keep_its_session(
    pause_s: float, tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01) as swarm:
        await swarm.start("0-4", "5-8")
        made = []
        async with swarm.client() as client:
            async for event in client.stream(PROMPTS[1], max_tokens=8):
                if isinstance(event, Token):
                    made.append(event.token_id)
                    if len(made) == 4:
                        await asyncio.sleep(pause_s)
    assert made == greedy(tiny, PROMPTS[1], 8)
