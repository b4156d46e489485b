"""A crowd of sessions on peers of mixed speed: how long they wait for each token, and for whom.

Real clients, nodes, engine and routing, in memory and on virtual time. Only what a forward takes is
given: ``(FIXED_S + TOKEN_S * tokens) / speed``, so that it does not depend on this machine.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
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
"""Of a peer of speed 1. Ten tokens cost as much as reading the weights, as on many processors."""
LATENCY_S = 0.010
"""One way, between any two."""
NUM_CLIENTS = 24
"""Beside others, one client has at most 4 sessions at a peer, those at standbys included."""
PROMPT_TOKENS = (8, 256)
ANSWER_TOKENS = (8, 64)
SETTLED_S = 3.0
"""Until everybody has heard of everybody."""
WARM = 0.2
"""The share of the arrivals after which the crowd is as large as it gets."""


@dataclass(frozen=True, slots=True)
class Request:
    """One session of the crowd."""

    number: int
    at_s: float
    """After the first one."""
    prompt: tuple[int, ...]
    max_tokens: int

    @property
    def num_tokens(self) -> int:
        """All that have to be computed."""
        return len(self.prompt) + self.max_tokens


@dataclass(slots=True)
class Crowd:
    """What became of the sessions. Times count from the first arrival."""

    token_times: list[tuple[float, float]] = field(default_factory=list)
    """(when it came, how long after the one before), of all tokens but each answer's first."""
    computed: list[tuple[float, int]] = field(default_factory=list)
    """(when, tokens of prompts and answers that were computed for it)"""
    last_began_s: float = 0.0
    texts: dict[int, tuple[int, ...]] = field(default_factory=dict)
    hops: list[HopCost] = field(default_factory=list)
    """What each hop of each session has cost."""
    failovers: int = 0
    """Nobody fails: each is a false alarm, or makes way for another peer."""
    spent_s: dict[LayerRange, float] = field(default_factory=dict)
    """What the peers of each range have computed, in seconds of a peer of speed 1."""
    lasted_s: float = 0.0

    def waits_s(self, requests: Sequence[Request]) -> list[float]:
        """The times of tokens that came while the crowd was large, shortest first."""
        stop_s = max(each.at_s for each in requests)
        return sorted(wait for at, wait in self.token_times if WARM * stop_s <= at <= stop_s)

    def busy(self) -> float:
        """The share of the time in which the range with the most to do computed."""
        return max(
            self.spent_s[LayerRange.parse(text)] / sum(speeds) / self.lasted_s
            for text, speeds in PEERS
        )

    def per_step_s(self) -> dict[LayerRange, tuple[float, float]]:
        """(waiting, computing) of a step in each range, mean."""
        found: dict[LayerRange, tuple[float, float]] = {}
        for layers in self.spent_s:
            hops = [hop for hop in self.hops if hop.layers == layers]
            num_steps = max(1, sum(hop.num_steps for hop in hops))
            waiting_s = sum(hop.queue_s for hop in hops) / num_steps
            found[layers] = waiting_s, sum(hop.compute_s for hop in hops) / num_steps
        return found


def requests(num: int, *, seed: int, tokens_per_s: float) -> list[Request]:
    """So many sessions that ask for so much together; arrivals as of a Poisson process.

    Given their number, such arrivals are spread evenly over the time; it is as long as all tokens
    take at that rate.
    """
    rng = random.Random(seed)
    lengths = [(rng.randint(*PROMPT_TOKENS), rng.randint(*ANSWER_TOKENS)) for _ in range(num)]
    lasts_s = sum(map(sum, lengths)) / tokens_per_s
    moments = sorted(rng.uniform(0.0, lasts_s) for _ in range(num))
    return [
        Request(
            number,
            at_s - moments[0],
            tuple(rng.randrange(3, 500) for _ in range(prompt_tokens)),
            max_tokens,
        )
        for number, (at_s, (prompt_tokens, max_tokens)) in enumerate(
            zip(moments, lengths, strict=True)
        )
    ]


def run_crowd(wanted: Sequence[Request], cache: Path, *, at_once: int | None = None) -> Crowd:
    """Serve them all; blocks.

    at_once: no more sessions than so many at a time; those that arrive meanwhile wait
    """
    folder = tiny_model(cache / "lab", NUM_LAYERS)
    return run_virtual(_run(folder, cache, wanted, at_once or len(wanted)))


def capacity(num: int, at_once: int, cache: Path, *, seed: int = 0) -> float:
    """Tokens (prompts and answers) per second while there are always so many sessions. Blocks."""
    crowd = run_crowd(requests(num, seed=seed, tokens_per_s=1e9), cache, at_once=at_once)
    done = sum(num_tokens for at, num_tokens in crowd.computed if at <= crowd.last_began_s)
    return done / crowd.last_began_s


async def _run(folder: Path, cache: Path, wanted: Sequence[Request], at_once: int) -> Crowd:
    crowd, clock = Crowd(), asyncio.get_running_loop().time
    async with (
        LocalSwarm(folder, cache=cache, latency_s=LATENCY_S) as swarm,
        AsyncExitStack() as stack,
        Tasks() as tasks,
    ):
        nodes = await _start(swarm)
        clients = [await stack.enter_async_context(swarm.client()) for _ in range(NUM_CLIENTS)]
        await asyncio.sleep(SETTLED_S)
        began, gate = clock(), asyncio.Semaphore(at_once)
        for each in wanted:
            client = clients[each.number % NUM_CLIENTS]
            work = _one(client, each, began, gate, crowd)
            tasks.start(work, name=f"session-{each.number}")
        await tasks.wait()
        crowd.lasted_s = clock() - began
        for node, speed in nodes:
            spent_s = crowd.spent_s.get(node.layers, 0.0)
            crowd.spent_s[node.layers] = spent_s + speed * node.conditions.spent_s
    return crowd


async def _start(swarm: LocalSwarm) -> list[tuple[LabNode, int]]:
    """The peers, serving, and their speeds."""
    nodes = [
        (
            swarm.add(LayerRange.parse(text), compute_s=FIXED_S / speed, token_s=TOKEN_S / speed),
            speed,
        )
        for text, speeds in PEERS
        for speed in speeds
    ]
    for node, _ in nodes:
        await node.is_serving.wait()
    return nodes


async def _one(
    client: Client, request: Request, began: float, gate: asyncio.Semaphore, crowd: Crowd
) -> None:
    clock, last_s = asyncio.get_running_loop().time, None
    await asyncio.sleep(began + request.at_s - clock())
    async with gate:
        crowd.last_began_s = clock() - began
        stream = client.stream(request.prompt, max_tokens=request.max_tokens)
        async with aclosing(stream) as events:
            async for event in events:
                if isinstance(event, Token):
                    now_s = clock() - began
                    if last_s is not None:
                        crowd.token_times.append((now_s, now_s - last_s))
                    crowd.computed.append((now_s, 1 if last_s is not None else len(request.prompt)))
                    last_s = now_s
                elif isinstance(event, Done):
                    crowd.texts[request.number] = event.token_ids
                    crowd.hops += event.hops
                    crowd.failovers += event.failovers
