"""A peer that died stays announced for a while: who still uses it, and for how long it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from p2pnode.client.client import Client
from p2pnode.client.events import ChainChosen, Token
from p2pnode.dht.memory import MemoryDirectory
from p2pnode.lab.memory_runner import memory_swarm
from p2pnode.lab.presets import Link
from p2pnode.lab.reference import Task, prepare
from p2pnode.lab.scenario import Node, Request, Scenario
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.lab.virtual_time import run_virtual
from p2pnode.net.memory import fake_identity
from p2pnode.types import LayerRange, PeerId

KILLED_AT = 6
NUM_TOKENS = 12
GIVES_UP_S = 180.0
OBSERVER = 5000


@dataclass(slots=True)
class Dead:
    """What became of an announcement whose peer was killed."""

    gone_after_s: float = GIVES_UP_S
    """From the kill until the directory does not show it any more."""
    used_again: int = 0
    """Chains with the dead peer in them, after its failure was seen."""
    sessions: int = 0
    """Of the same client, while it was announced."""


def announced_for(cache: Path, *, seed: int = 0) -> Dead:
    """Kill a hop in mid-session, then generate on until its announcement is gone. Blocks."""
    nodes = tuple(
        Node(name=f"hop-{hop}", layers=LayerRange(2 * hop, 2 * hop + 2), count=2, compute_ms=5.0)
        for hop in range(2)
    )
    request = Request(prompt_tokens=8, max_tokens=NUM_TOKENS)
    link = Link(delay_ms=20.0)
    scenario = Scenario(name="dead", nodes=nodes, client=request, seed=seed, link=link)
    return run_virtual(_run(scenario, prepare(scenario, cache), cache))


async def _run(scenario: Scenario, task: Task, cache: Path) -> Dead:
    clock, found = asyncio.get_running_loop().time, Dead()
    async with memory_swarm(scenario, task, cache) as (swarm, _), swarm.client() as client:
        chain = await _generate(client, task, swarm, kill=True)
        killed_at, victim = clock(), chain[0][0]
        reader = MemoryDirectory(swarm.dht, fake_identity(OBSERVER).key_pair)
        while clock() < killed_at + GIVES_UP_S:
            announced = {each.peer for each in await reader.announcements()}
            if victim not in announced:
                found.gone_after_s = clock() - killed_at
                break
            chains = await _generate(client, task, swarm)
            found.sessions += 1
            found.used_again += sum(victim in chain for chain in chains)
    return found


async def _generate(
    client: Client, task: Task, swarm: LocalSwarm, *, kill: bool = False
) -> Sequence[tuple[PeerId, ...]]:
    """The chains of one session; ``kill``: its first hop dies on the way."""
    chains: list[tuple[PeerId, ...]] = []
    count = 0
    async for event in client.stream(list(task.prompt_ids), max_tokens=task.max_tokens):
        if isinstance(event, ChainChosen):
            chains.append(tuple(hop.peer for hop in event.chain.hops))
        elif isinstance(event, Token):
            count += 1
            if kill and count == KILLED_AT:
                swarm.kill(swarm.node(chains[0][0]))
    return chains
