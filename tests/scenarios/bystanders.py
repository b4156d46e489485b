"""What must hold whatever a hostile peer does: others go on, and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from p2pnode.client.client import Client
from p2pnode.client.events import Done
from p2pnode.lab.swarm import LabNode, LocalSwarm
from tests.support.models import greedy

PROMPT = [1, 403, 407, 261, 378, 31, 76, 99]
NUM_TOKENS = 24
LATENCY_S = 0.01
READ_S = 0.02
"""Of a token, by somebody who reads it."""


@asynccontextmanager
async def undisturbed(swarm: LocalSwarm, folder: Path) -> AsyncIterator[None]:
    """Somebody else's sessions run meanwhile, and neither fail over nor change."""
    answers: list[Done] = []
    is_over = asyncio.Event()

    async def ask(client: Client) -> None:
        while not answers or not is_over.is_set():
            async with aclosing(client.stream(PROMPT, max_tokens=NUM_TOKENS)) as events:
                async for event in events:
                    if isinstance(event, Done):
                        answers.append(event)
                    else:
                        await asyncio.sleep(READ_S)

    async with swarm.client() as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(ask(client))
        await asyncio.sleep(0.3)
        assert not answers, "the first session must be in its middle"
        yield
        is_over.set()
    expected = greedy(folder, PROMPT, NUM_TOKENS)
    assert [list(done.token_ids) for done in answers] == [expected] * len(answers)
    assert [done.failovers for done in answers] == [0] * len(answers)


async def assert_nothing_held(*nodes: LabNode) -> None:
    """Every session that was opened is closed, a moment later."""
    await asyncio.sleep(0.2)
    assert [num_held(node) for node in nodes] == [0] * len(nodes)


def num_held(node: LabNode) -> int:
    """How many sessions have a place on a node."""
    names = [event for event, _ in node.events]
    return names.count("session_opened") - names.count("session_closed")
