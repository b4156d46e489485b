"""Chains of real node processes on this machine, one thread each, and a client in front of them."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from p2pnode.bench.timing import Timing
from p2pnode.client.client import Client
from p2pnode.client.events import Done, Token
from p2pnode.config import ClientConfig, SwarmConfig, home
from p2pnode.node.processes import NodeProcess, NodeProcesses
from p2pnode.types import LayerRange

PROMPT = [1, 403, 407, 261]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Chain:
    """A swarm of its own that splits one model, and a client in it."""

    nodes: list[NodeProcess]
    client: Client

    async def run(self, prompt: list[int], num_tokens: int) -> Timing:
        """One greedy generation of at most so many tokens."""
        began, at = time.perf_counter(), []
        async for event in self.client.stream(prompt, max_tokens=num_tokens):
            if isinstance(event, Token):
                at.append(time.perf_counter())
            elif isinstance(event, Done):
                compute_s = sum(hop.compute_s / max(1, hop.num_steps) for hop in event.hops)
        return Timing.of(began, at, compute_s)


@asynccontextmanager
async def local_chain(
    folder: Path, model: str | None, num_layers: int, parts: int, note: Note
) -> AsyncIterator[Chain]:
    """Start a swarm of ``parts`` nodes that split a model evenly, and a client."""
    note(f"starting {parts} node{'s' if parts > 1 else ''} of {Path(model or 'the built-in').name}")
    place = new_home(folder, f"{Path(model or 'builtin').name}-{parts}")
    edges = [part * num_layers // parts for part in range(parts + 1)]
    async with NodeProcesses(place, model=model, environment=ONE_THREAD) as processes:
        for start, stop in itertools.pairwise(edges):
            join = processes.nodes[0].address if processes.nodes else ""
            node = await processes.listen(LayerRange(start, stop), join)
            await processes.serve(node)
        swarm = SwarmConfig(
            home=home(place), join=(processes.nodes[0].address,), starts_swarm=False
        )
        # Prompts are repeated, and each time all of them is to be computed.
        config = ClientConfig(swarm=swarm, cache=swarm.home.cache, keeps_prefixes=False)
        async with Client(config=config, model=model) as client:
            yield Chain(list(processes.nodes), client)


def new_home(folder: Path, name: str) -> Path:
    """A home for a swarm."""
    place = folder / name
    place.mkdir()
    return place
