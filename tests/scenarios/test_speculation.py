"""Guesses make an answer come sooner and never change it, whatever they are and whoever dies."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from p2pnode.client.client import Client
from p2pnode.client.events import Done, Token
from p2pnode.lab.oracle import Oracle
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.pipeline.lookup import Lookup
from p2pnode.pipeline.speculation import Drafter
from p2pnode.types import Sampling
from tests.support.models import greedy

PROMPT = [1, 403, 407, 261, 378, 31, 76, 99]
NUM_TOKENS = 48
LATENCY_S = 0.02
LOOP_S = 4 * LATENCY_S
SEEDED = Sampling(temperature=0.8, seed=7)
PENALISED = Sampling(temperature=0.8, seed=7, repetition_penalty=1.3)

pytestmark = pytest.mark.virtual_time


async def answer(
    client: Client,
    drafter: Drafter | None,
    *,
    sampling: Sampling | None = None,
    at_token: Callable[[int], None] | None = None,
    num_tokens: int = NUM_TOKENS,
) -> Done:
    made: list[int] = []
    done: Done | None = None
    events = client.stream(PROMPT, max_tokens=num_tokens, sampling=sampling, drafter=drafter)
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Token):
                assert event.position == len(PROMPT) + len(made)
                made.append(event.token_id)
                if at_token is not None:
                    at_token(len(made))
            elif isinstance(event, Done):
                done = event
    assert done is not None
    assert list(done.token_ids) == made
    return done


@pytest.mark.parametrize("sampling", [None, SEEDED, PENALISED], ids=["greedy", "seeded", "penalty"])
@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
async def test_the_text_is_that_of_plain_decoding(
    share: float, sampling: Sampling | None, tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start("0-2", "3-5", "6-8")
        async with swarm.client() as client:
            plain = await answer(client, None, sampling=sampling)
            oracle = Oracle([*PROMPT, *plain.token_ids], share)
            guessed = await answer(client, oracle, sampling=sampling)
    assert guessed.token_ids == plain.token_ids
    assert oracle.num_asked
    assert guessed.failovers == 0
    if sampling is None:
        assert list(plain.token_ids) == greedy(tiny, PROMPT, NUM_TOKENS)


@pytest.mark.parametrize(("share", "gain"), [(0.0, 0.95), (0.6, 1.6), (0.8, 2.5), (0.9, 3.5)])
async def test_right_guesses_make_it_faster(
    share: float, gain: float, tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start("0-2", "3-5", "6-8")
        async with swarm.client() as client:
            plain = await answer(client, None, num_tokens=120)
            guessed = await answer(
                client, Oracle([*PROMPT, *plain.token_ids], share), num_tokens=120
            )
    assert guessed.token_ids == plain.token_ids
    assert guessed.tokens_per_s >= gain / LOOP_S
    assert guessed.tokens_per_s >= 0.95 * plain.tokens_per_s


@pytest.mark.parametrize("standbys", [True, False], ids=["standbys", "alone"])
@pytest.mark.parametrize("dies_at", range(1, NUM_TOKENS, 10))
@pytest.mark.parametrize("hop", range(3))
async def test_a_hop_dies_with_windows_in_flight(
    hop: int, dies_at: int, standbys: bool, tiny: Path, cache: Path
) -> None:
    config = {"standbys": standbys}
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S, config=config) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        await swarm.start("0-2", "3-5", "6-8")
        expected = greedy(tiny, PROMPT, NUM_TOKENS)
        async with swarm.client() as client:
            done = await answer(
                client,
                Oracle([*PROMPT, *expected], 0.8),
                at_token=lambda count: swarm.kill(nodes[hop]) if count == dies_at else None,
            )
    assert list(done.token_ids) == expected


async def test_lookups_find_what_followed_the_last_time() -> None:
    lookup = Lookup()
    known = [1, 2, 3, 4, 5, 9, 1, 2, 3]
    assert await lookup.draft(known, [], 3) == [4, 5, 9]
    assert await lookup.draft(known, [4], 3) == [5, 9, 1]
    assert await lookup.draft([*known, 7], [], 3) == []
    assert await lookup.draft([*known, 7, 2, 3], [], 2) == [7, 2]
