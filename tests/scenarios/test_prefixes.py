"""Prompts that begin like earlier ones: less is computed, and the text stays the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pnode.client.events import Done, Token
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.types import Sampling
from p2pnode.wire.pages import PAGE_TOKENS
from tests.support.models import greedy

BEGINNING = [1, *(400 + 7 * index % 90 for index in range(2 * PAGE_TOKENS + 5))]
FIRST = [*BEGINNING, 31]
SECOND = [*BEGINNING, 70, 12, 261]
PICKY = Sampling(temperature=1.0, top_p=0.95, repetition_penalty=1.3, seed=7)

pytestmark = pytest.mark.virtual_time


def swarm_of(tiny: Path, cache: Path, **config: object) -> LocalSwarm:
    return LocalSwarm(tiny, cache=cache, latency_s=0.01, config=dict(config))


@pytest.mark.parametrize("ranges", [["0-8"], ["0-2", "3-5", "6-8"]])
async def test_what_earlier_prompts_had_in_common_is_not_computed_again(
    tiny: Path, cache: Path, ranges: list[str]
) -> None:
    async with swarm_of(tiny, cache) as swarm:
        await swarm.start(*ranges)
        async with swarm.client() as client:
            first = await client.generate(FIRST, max_tokens=8)
            second = await client.generate(SECOND, max_tokens=8)
    assert list(first.token_ids) == greedy(tiny, FIRST, 8)
    assert list(second.token_ids) == greedy(tiny, SECOND, 8)
    assert (first.cached_tokens, second.cached_tokens) == (0, 2 * PAGE_TOKENS)


async def test_a_chat_goes_on_behind_its_last_answer(tiny: Path, cache: Path) -> None:
    async with swarm_of(tiny, cache) as swarm:
        await swarm.start("0-2", "3-5", "6-8")
        async with swarm.client() as client:
            line, cached = list(BEGINNING), []
            for _ in range(2):
                done = await client.generate(line, max_tokens=60)
                assert list(done.token_ids) == greedy(tiny, line, len(done.token_ids))
                cached.append(done.cached_tokens)
                line = [*line, *done.token_ids, 31]
    assert len(line) > 3 * PAGE_TOKENS
    last = await _cached_of(tiny, cache, line)
    assert cached == [0, 2 * PAGE_TOKENS]
    assert last == 0, "another swarm knows nothing"


async def _cached_of(tiny: Path, cache: Path, prompt: list[int]) -> int:
    async with swarm_of(tiny, cache) as swarm:
        await swarm.start("0-8")
        async with swarm.client() as client:
            return (await client.generate(prompt, max_tokens=1)).cached_tokens


async def test_a_prompt_that_is_held_whole_still_gets_its_answer(tiny: Path, cache: Path) -> None:
    prompt = FIRST[: 2 * PAGE_TOKENS]
    async with swarm_of(tiny, cache) as swarm:
        await swarm.start("0-2", "3-8")
        async with swarm.client() as client:
            await client.generate(prompt, max_tokens=4)
            again = await client.generate(prompt, max_tokens=4)
    assert list(again.token_ids) == greedy(tiny, prompt, 4)
    assert again.cached_tokens == len(prompt) - 1


async def test_other_clients_get_nothing_of_it(tiny: Path, cache: Path) -> None:
    async with swarm_of(tiny, cache) as swarm:
        await swarm.start("0-2", "3-8")
        async with swarm.client() as one, swarm.client() as other:
            await one.generate(FIRST, max_tokens=4)
            assert (await other.generate(FIRST, max_tokens=4)).cached_tokens == 0


async def test_a_client_may_wish_that_nothing_is_kept(tiny: Path, cache: Path) -> None:
    async with swarm_of(tiny, cache, keeps_prefixes=False) as swarm:
        await swarm.start("0-8")
        async with swarm.client() as client:
            await client.generate(FIRST, max_tokens=4)
            assert (await client.generate(FIRST, max_tokens=4)).cached_tokens == 0


async def test_sampled_text_with_penalties_is_the_same_with_and_without(
    tiny: Path, cache: Path
) -> None:
    texts = []
    for keeps in (True, False):
        async with swarm_of(tiny, cache, keeps_prefixes=keeps) as swarm:
            await swarm.start("0-2", "3-5", "6-8")
            async with swarm.client() as client:
                await client.generate(FIRST, max_tokens=4)
                done = await client.generate(SECOND, max_tokens=12, sampling=PICKY)
                texts.append(done.token_ids)
    assert texts[0] == texts[1]


async def test_with_a_head_of_its_own_a_client_begins_behind_it_too(
    tiny: Path, cache: Path
) -> None:
    async with swarm_of(tiny, cache) as swarm:
        await swarm.start("0-2", "3-5", "6-8")
        async with swarm.client(head="local") as client:
            await client.generate(FIRST, max_tokens=4)
            second = await client.generate(SECOND, max_tokens=8)
    assert list(second.token_ids) == greedy(tiny, SECOND, 8)
    assert second.cached_tokens == 2 * PAGE_TOKENS


@pytest.mark.parametrize("lost", [0, 1, 2])
@pytest.mark.parametrize("has_standby", [False, True])
async def test_hops_may_die_in_a_session_that_began_in_the_middle(
    tiny: Path, cache: Path, lost: int, has_standby: bool
) -> None:
    ranges = ["0-2", "3-5", "6-8"]
    async with swarm_of(tiny, cache, standbys=has_standby) as swarm:
        nodes = await swarm.start(*ranges)
        async with swarm.client() as client:
            await client.generate(FIRST, max_tokens=4)
            await swarm.start(ranges[lost])
            made, done = [], None
            async for event in client.stream(SECOND, max_tokens=12):
                if isinstance(event, Token):
                    made.append(event.token_id)
                    if len(made) == 5:
                        swarm.kill(nodes[lost])
                elif isinstance(event, Done):
                    done = event
    assert made == greedy(tiny, SECOND, 12)
    assert done is not None
    assert (done.cached_tokens, done.failovers) == (2 * PAGE_TOKENS, 1)


async def test_hops_that_hold_less_are_waited_for(tiny: Path, cache: Path) -> None:
    """The middle hop is a newcomer and holds nothing: then all begin at 0."""
    async with swarm_of(tiny, cache) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        async with swarm.client() as client:
            await client.generate(FIRST, max_tokens=4)
            swarm.kill(nodes[1])
            await swarm.start("3-5")
            second = await client.generate(SECOND, max_tokens=8)
            third = await client.generate(SECOND, max_tokens=8)
    assert list(second.token_ids) == list(third.token_ids) == greedy(tiny, SECOND, 8)
    assert (second.cached_tokens, third.cached_tokens) == (0, 2 * PAGE_TOKENS)
