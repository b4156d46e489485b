"""When a hop copies its journal to the next one's standby."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from p2pnode.serving.job import Output
from p2pnode.serving.session import HopSession
from p2pnode.serving.shadows import INTERVAL_S, MAX_AGE_S, MAX_BYTES, MAX_ROWS, MIN_ROWS, Shadows
from p2pnode.tasks import Tasks
from p2pnode.wire.messages import Shadow, Step
from tests.serving.test_session import BEFORE, STRANGER, FakeLink, a_step, session
from tests.support.hostile import hidden

pytestmark = pytest.mark.virtual_time

DECODE_S = 0.1


class NotingLink(FakeLink):
    """Notes when it is sent how many rows."""

    def __init__(self) -> None:
        super().__init__(STRANGER)
        self.sent: list[tuple[float, int]] = []
        self._began = asyncio.get_running_loop().time()

    def send(self, message: Step) -> None:
        now = asyncio.get_running_loop().time() - self._began
        self.sent.append((round(now, 6), message.entry.shape[0]))


class CountingSession(HopSession):
    """Counts how often somebody looks for what can be copied."""

    num_looks = 0

    def uncopied(self, max_tokens: int, *, leave: int) -> Any:
        type(self).num_looks += 1
        return HopSession.uncopied(self, max_tokens, leave=leave)


def shadowed(shadows: Shadows, hop: HopSession, link: Any) -> None:
    message = Shadow(
        session=hop.id,
        layer=3,
        epoch=1,
        previous=None,
        next=STRANGER,
        next_addresses=(),
        position=0,
    )
    shadows.set(hop, message, link)


def compute(shadows: Shadows, hop: HopSession, position: int, tokens: int) -> None:
    job = hop.accept(a_step(position, tokens), BEFORE, now=1.0)
    assert job is not None
    assert hop.finish(job, Output(position, hidden(tokens, value=position)))
    shadows.grew(hop)


@asynccontextmanager
async def running() -> AsyncIterator[Shadows]:
    shadows = Shadows()
    async with Tasks() as tasks:
        tasks.start(shadows.run(), name="shadows")
        yield shadows


async def test_decode_rows_are_copied_together_twice_a_second_but_for_the_newest() -> None:
    hop, link = session(max_tokens=100), NotingLink()
    async with running() as shadows:
        shadowed(shadows, hop, link)
        await asyncio.sleep(DECODE_S / 2)
        for position in range(16):
            compute(shadows, hop, position, 1)
            await asyncio.sleep(DECODE_S)
    assert link.sent == [(0.5, 4), (1.0, 5), (1.5, 5)]


async def test_enough_rows_for_a_step_of_their_own_do_not_wait() -> None:
    hop, link = session(max_tokens=100), NotingLink()
    async with running() as shadows:
        shadowed(shadows, hop, link)
        await asyncio.sleep(1.0)
        compute(shadows, hop, 0, MIN_ROWS + 1)
        await asyncio.sleep(INTERVAL_S / 2)
        compute(shadows, hop, MIN_ROWS + 1, MIN_ROWS)
        await asyncio.sleep(MAX_AGE_S / 2)
    assert link.sent == [(1.0, MIN_ROWS), (1.0 + INTERVAL_S, MIN_ROWS)]


async def test_a_long_prompt_is_copied_piece_by_piece() -> None:
    tokens = 3 * MAX_ROWS + 1
    assert MAX_ROWS * hidden(1).num_bytes < MAX_BYTES
    hop, link = session(max_tokens=tokens), NotingLink()
    async with running() as shadows:
        compute(shadows, hop, 0, tokens)
        shadowed(shadows, hop, link)
        await asyncio.sleep(10.0)
    assert link.sent == [(round(turn * INTERVAL_S, 6), MAX_ROWS) for turn in (1, 2, 3)]


async def test_who_has_all_or_can_have_no_more_is_not_looked_after() -> None:
    CountingSession.num_looks = 0
    plain = session(max_tokens=100)
    fields = ("id", "block", "epoch", "max_tokens", "client", "previous", "next", "send_from")
    values = {name: getattr(plain, name) for name in (*fields, "token_ids", "cache")}
    hop, link = CountingSession(**values), NotingLink()
    async with running() as shadows:
        shadowed(shadows, hop, link)
        for position in range(4):
            compute(shadows, hop, position, 1)
        await asyncio.sleep(100.0)
        assert (CountingSession.num_looks, sum(rows for _, rows in link.sent)) == (1, 3)
        for position in range(4, 12):
            hop.journal.trim(2 * hidden(1).num_bytes)  # what the standby lacks is forgotten
            compute(shadows, hop, position, 1)
        await asyncio.sleep(100.0)
    assert CountingSession.num_looks == 2
    assert sum(rows for _, rows in link.sent) == 3


async def test_a_standby_that_is_gone_is_copied_nothing() -> None:
    hop, link = session(max_tokens=100), NotingLink()
    async with running() as shadows:
        shadowed(shadows, hop, link)
        link.is_open = False
        compute(shadows, hop, 0, 2 * MIN_ROWS)
        await asyncio.sleep(1.0)
    assert link.sent == []
    assert hop.shadowing is None
