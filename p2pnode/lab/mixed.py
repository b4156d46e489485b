"""A crowd of sessions on peers of mixed speed: who waits how long for a token, and for whom.

Real clients, nodes, engine and routing, in memory and on virtual time. Only the time of a forward
is given: ``fixed_s + token_s * tokens``, divided by the peer's speed. So a run is the same each
time, and its load is known.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path

from p2pnode.client.client import Client
from p2pnode.client.events import Done, HopCost, Token
from p2pnode.lab.reference import tiny_model
from p2pnode.lab.swarm import LabNode, LocalSwarm
from p2pnode.lab.virtual_time import run_virtual
from p2pnode.tasks import Tasks
from p2pnode.types import LayerRange

PEERS = (("0-2", (4, 2, 1)), ("3-5", (4, 2, 1)), ("6-8", (4, 2)))
"""The speeds of the peers of each range; 1 is the slowest."""
NUM_LAYERS = 9
FIXED_S = 0.040
TOKEN_S = 0.004
"""A forward of one peer of speed 1; its knee is at 10 tokens."""
LATENCY_S = 0.010
"""One way, between any two."""
NUM_CLIENTS = 6
PROMPT_TOKENS = (8, 256)
ANSWER_TOKENS = (8, 64)
SETTLED_S = 3.0
"""Until all have heard of each other."""


@dataclass(frozen=True, slots=True)
class Request:
    """One session of the crowd."""

    number: int
    at_s: float
    """After the first moment."""
    prompt: tuple[int, ...]
    num_tokens: int


@dataclass(slots=True)
class Crowd:
    """What became of the sessions."""

    gaps_s: list[float] = field(default_factory=list)
    """From each token to the next one of its session, all sessions together."""
    costs: list[HopCost] = field(default_factory=list)
    """What each hop of each session spent."""
    texts: dict[int, tuple[int, ...]] = field(default_factory=dict)
    begun: list[float] = field(default_factory=list)
    failovers: int = 0
    hedges: int = 0
    arrived_s: float = 0.0
    """From the first arrival to the last one."""
    lasted_s: float = 0.0
    """From the first arrival to the last token."""
    busy: dict[tuple[str, int], float] = field(default_factory=dict)


def requests(num: int, *, seed: int, per_s: float) -> list[Request]:
    """Poisson arrivals of so many sessions per second, lengths evenly spread.

    The lengths depend on the seed alone, not on the rate.
    """
    rng = random.Random(seed)
    found, at_s = [], 0.0
    for number in range(num):
        prompt = tuple(rng.randrange(3, 500) for _ in range(rng.randint(*PROMPT_TOKENS)))
        num_tokens = rng.randint(*ANSWER_TOKENS)
        found.append(Request(number, at_s, prompt, num_tokens))
        at_s += rng.expovariate(1.0) / per_s
    return found


def run_crowd(cache: Path, wanted: Sequence[Request], *, at_once=None, **config) -> Crowd:
    folder = tiny_model(cache / "lab", NUM_LAYERS)
    return run_virtual(_run(folder, cache, wanted, at_once, config), debug=False)


async def _run(folder: Path, cache: Path, wanted: Sequence[Request], at_once, config) -> Crowd:
    crowd, loop = Crowd(), asyncio.get_running_loop()
    async with LocalSwarm(folder, cache=cache, latency_s=LATENCY_S, config=config) as swarm, AsyncExitStack() as stack:
        nodes = {}
        for text, speeds in PEERS:
            for speed in speeds:
                nodes[text, speed] = swarm.add(
                    LayerRange.parse(text), compute_s=FIXED_S / speed, token_s=TOKEN_S / speed
                )
        for node in nodes.values():
            await node.is_serving.wait()
        clients = [await stack.enter_async_context(swarm.client()) for _ in range(NUM_CLIENTS)]
        await asyncio.sleep(SETTLED_S)
        began = loop.time()
        busy = {k: n.conditions.spent_s for k, n in nodes.items()}
        gate = asyncio.Semaphore(at_once or len(wanted))
        async with Tasks() as tasks:
            for each in wanted:
                client = clients[each.number % NUM_CLIENTS]
                tasks.start(_one(client, each, began, crowd, gate), name=f"session-{each.number}")
            await tasks.wait()
        crowd.arrived_s = max(each.at_s for each in wanted)
        crowd.lasted_s = loop.time() - began
        crowd.busy = {k: (n.conditions.spent_s - busy[k]) / crowd.lasted_s for k, n in nodes.items()}
    return crowd


async def _one(client: Client, request: Request, began: float, crowd: Crowd, gate) -> None:
    await asyncio.sleep(began + request.at_s - asyncio.get_running_loop().time())
    async with gate:
        crowd.begun.append(asyncio.get_running_loop().time() - began)
        await _generate(client, request, crowd)


async def _generate(client, request, crowd):
    loop = asyncio.get_running_loop()
    times: list[float] = []
    options = {"max_tokens": request.num_tokens}
    async with aclosing(client.stream(list(request.prompt), **options)) as events:
        async for event in events:
            if isinstance(event, Token):
                times.append(loop.time())
            elif isinstance(event, Done):
                crowd.costs += event.hops
                crowd.texts[request.number] = event.token_ids
                crowd.failovers += event.failovers
                crowd.hedges += event.hedges
    crowd.gaps_s += [b - a for a, b in itertools.pairwise(times)]
