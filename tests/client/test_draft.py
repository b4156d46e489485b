"""A draft's guesses are its own answer, whatever was asked of it before."""

from __future__ import annotations

import asyncio
from pathlib import Path

from p2pnode.client.draft import DraftModel
from p2pnode.model.chooser import Chooser
from p2pnode.model.spec import read_spec
from p2pnode.types import Sampling
from tests.support.models import greedy

PROMPT = [1, 403, 407, 261]
MANY = 200


def draft_model(folder: Path) -> DraftModel:
    return DraftModel.load(folder, read_spec(folder, "tiny", ""))


async def test_a_call_that_another_follows_ends_early_and_leaves_nothing_behind(tiny: Path) -> None:
    expected = greedy(tiny, PROMPT, 12)
    async with draft_model(tiny) as model:
        drafter = model.drafter(Chooser(Sampling(), num_prompt=len(PROMPT)))
        outdated = asyncio.create_task(drafter.draft(PROMPT[:2], [9, 9], MANY))
        await asyncio.sleep(0)  # it has been handed to the thread

        guesses = await drafter.draft(PROMPT, [], 4)
        more = await drafter.draft([*PROMPT, *guesses[:2]], guesses[2:], 8)

        assert [*guesses, *more] == expected
        assert len(await outdated) < MANY


async def test_one_that_is_given_up_under_way_does_not_spoil_the_next(tiny: Path) -> None:
    expected = greedy(tiny, PROMPT, 4)
    async with draft_model(tiny) as model:
        drafter = model.drafter(Chooser(Sampling(), num_prompt=len(PROMPT)))
        outdated = asyncio.create_task(drafter.draft(PROMPT, [9], MANY))
        await asyncio.sleep(0)
        outdated.cancel()

        assert await drafter.draft(PROMPT, [], 4) == expected
