"""The drafter that knows the answer, and sessions that decode in older ways, in virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from p2pnode.client.client import Client
from p2pnode.client.events import Done
from p2pnode.config import ClientConfig
from p2pnode.lab.member import LabMember
from p2pnode.lab.oracle import Oracle
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.lab.wan.sessions import MeasuringClient, Told
from p2pnode.net.memory import fake_identity
from tests.support.models import greedy

PROMPT = [1, 403, 407, 261, 378]
NUM_TOKENS = 24
DELAY_S = 0.02

pytestmark = pytest.mark.virtual_time


async def test_an_oracle_is_as_right_as_it_was_asked_to_be_and_takes_its_time() -> None:
    line = list(range(3, 5003))
    oracle, clock = Oracle(line, 0.8, token_s=0.002), asyncio.get_running_loop().time
    began = clock()
    guesses = await oracle.draft(line[:1000], line[1000:1004], 4000)
    assert clock() - began == pytest.approx(8.0)
    num_right = sum(a == b for a, b in zip(guesses, line[1004:], strict=False))
    assert 0.78 < num_right / 3996 < 0.82
    assert await Oracle(line, 1.0).draft(line[:7], [], 3) == line[7:10]
    wrong = await Oracle([0, *line], 0.0).draft([], [], 5)
    assert all(
        guess != right and guess >= 0 for guess, right in zip(wrong, [0, *line], strict=False)
    )


async def answers(
    tiny: Path, cache: Path, told: Told | None = None, *, is_mediated: bool = False
) -> list[Done]:
    """The same answer twice, by one client."""
    async with LocalSwarm(tiny, cache=cache, latency_s=DELAY_S) as swarm:
        await swarm.start("0-2", "3-5", "6-8")
        client: Client = MeasuringClient(
            is_mediated=is_mediated,
            has_ring=False,
            model=str(tiny),
            config=ClientConfig(cache=cache, wall_clock=swarm.wall_clock),
            network=LabMember(swarm, fake_identity(2000)),
        )
        async with client:
            return [
                await client.generate(PROMPT, max_tokens=NUM_TOKENS, drafter=told) for _ in range(2)
            ]


async def test_hops_that_answer_the_client_make_the_same_text_in_six_ways_not_four(
    tiny: Path, cache: Path
) -> None:
    direct, mediated = await answers(tiny, cache), await answers(tiny, cache, is_mediated=True)
    assert [done.token_ids for done in mediated] == [done.token_ids for done in direct]
    assert direct[1].tokens_per_s == pytest.approx(1 / (4 * DELAY_S), rel=0.05)
    assert mediated[1].tokens_per_s == pytest.approx(1 / (6 * DELAY_S), rel=0.05)


@pytest.mark.parametrize("window", [3, 7])
async def test_a_synchronous_window_of_right_guesses_makes_one_token_more_per_loop(
    window: int, tiny: Path, cache: Path
) -> None:
    expected = greedy(tiny, PROMPT, NUM_TOKENS)
    told = Told(Oracle([*PROMPT, *expected], 1.0, token_s=0.0), window)
    done = (await answers(tiny, cache, told))[1]
    assert list(done.token_ids) == expected
    # The first token comes alone, and what is left at the end may fill no window.
    assert done.tokens_per_s == pytest.approx((window + 1) / (4 * DELAY_S), rel=0.12)
    assert told.policy is not None
    assert told.policy.num_wrong == 0


async def test_wrong_guesses_of_a_synchronous_window_change_nothing_but_the_time(
    tiny: Path, cache: Path
) -> None:
    expected = greedy(tiny, PROMPT, NUM_TOKENS)
    told = Told(Oracle([*PROMPT, *expected], 0.5, token_s=0.001), 4)
    done = (await answers(tiny, cache, told))[1]
    assert list(done.token_ids) == expected
    assert told.policy is not None
    assert told.policy.num_wrong > 0
    assert told.policy.num_right > 0
