"""Generations for minutes of virtual time on links whose delay varies, and nothing else wrong."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from p2pnode.client.client import Client
from p2pnode.errors import P2PNodeError
from p2pnode.lab.memory_runner import memory_swarm, noted_failures
from p2pnode.lab.presets import Link
from p2pnode.lab.reference import Task, prepare
from p2pnode.lab.scenario import Node, Request, Scenario
from p2pnode.lab.virtual_time import run_virtual
from p2pnode.types import LayerRange

log = logging.getLogger(__name__)

DELAY_MS = 20.0
COMPUTE_MS = 20.0
NUM_TOKENS = 48


@dataclass(slots=True)
class Jittered:
    """What became of the generations."""

    requests: int = 0
    right: int = 0
    failed: int = 0
    tokens: int = 0
    failovers: int = 0
    """Each of them false: nothing has failed."""
    hedges: int = 0
    false_alarms: int = 0
    """How often a client gave up on a hop that was well."""


def run_jitter(jitter: float, cache: Path, *, minutes: float = 10.0, seed: int = 0) -> Jittered:
    """Generate one text after the other over three hops for so many virtual minutes. Blocks.

    jitter: share of the delay of `DELAY_MS` by which each packet's varies
    """
    nodes = tuple(
        Node(
            name=f"hop-{hop}",
            layers=LayerRange(3 * hop, 3 * hop + 3),
            count=2,
            compute_ms=COMPUTE_MS,
        )
        for hop in range(3)
    )
    scenario = Scenario(
        name="jitter",
        nodes=nodes,
        client=Request(prompt_tokens=16, max_tokens=NUM_TOKENS),
        seed=seed,
        link=Link(delay_ms=DELAY_MS, jitter=jitter),
    )
    task, result = prepare(scenario, cache), Jittered()
    run_virtual(_generate(scenario, task, cache, 60 * minutes, result))
    return result


async def _generate(
    scenario: Scenario, task: Task, cache: Path, seconds: float, result: Jittered
) -> None:
    loop = asyncio.get_running_loop()

    def alarm() -> None:
        result.false_alarms += 1

    with noted_failures(alarm):
        async with memory_swarm(scenario, task, cache) as (swarm, _), swarm.client() as client:
            until = loop.time() + seconds
            while loop.time() < until:
                await _one(client, task, result)


async def _one(client: Client, task: Task, result: Jittered) -> None:
    result.requests += 1
    try:
        done = await client.generate(list(task.prompt_ids), max_tokens=task.max_tokens)
    except P2PNodeError as error:
        log.warning("a generation failed: error=%s", error)
        result.failed += 1
        return
    result.tokens += len(done.token_ids)
    result.failovers += done.failovers
    result.hedges += done.hedges
    result.right += done.token_ids == task.expected
