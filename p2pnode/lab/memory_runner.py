"""Runs a scenario in this process on virtual time, over the in-memory network.

`run_in_memory` is a sweep's backend: a scenario in, a `Trial` out. What differs from real
processes: the directory is one place, NATs do not exist, loss is lateness, a computation takes
the scenario's ``compute_ms``, and everything else takes no time.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2pnode.client.client import Client
from p2pnode.client.events import ChainChosen, Done, Token
from p2pnode.errors import BadRequest, P2PNodeError
from p2pnode.lab.faults import BYTES_PER_MBIT, MemoryFaults
from p2pnode.lab.presets import Way
from p2pnode.lab.reference import Task, prepare
from p2pnode.lab.result import Trial
from p2pnode.lab.scenario import CLIENT, Fault, Nat, Scenario, Where
from p2pnode.lab.seen import Seen
from p2pnode.lab.swarm import FIRST_CLIENT, LabNode, LocalSwarm
from p2pnode.lab.virtual_time import Deadlock, run_virtual
from p2pnode.net.memory import Line, fake_peer_id
from p2pnode.types import Chain

HANGS_AFTER_S = 120.0
"""Virtual seconds without a token: longer than every patience of a client together."""
STARTS_WITHIN_S = 20.0
FIGURE_S = 0.001
"""What a node without compute time announces."""


def run_in_memory(scenario: Scenario, cache: Path, *, commit: str = "unknown") -> Trial:
    """Run it, from the swarm's birth to the answer. Blocks; the same each time.

    Raises BadRequest for a scenario that cannot be run in memory, or whose request does not fit.
    """
    if any(node.nat is not Nat.NONE for node in scenario.nodes):
        raise BadRequest(f"{scenario.name}: there is no NAT in memory; use --transport namespaces")
    task = prepare(scenario, cache)
    run = MemoryRun(scenario, task, cache=cache)
    try:
        run_virtual(run.run())
    except Deadlock:
        run.is_hung = True
    return run.trial("memory", commit)


@dataclass(slots=True, eq=False)
class MemoryRun(Seen):
    """One run. All times are those of the loop."""

    cache: Path = field(kw_only=True)

    async def run(self) -> None:
        """The whole of it, on the running loop."""
        loop = asyncio.get_running_loop()
        with noted_failures(lambda: self.failures_s.append(loop.time())):
            async with memory_swarm(self.scenario, self.task, self.cache) as (swarm, nodes):
                plan = Plan(self, swarm, nodes)
                try:
                    async with asyncio.timeout(HANGS_AFTER_S) as limit, swarm.client() as client:
                        await self._generate(client, plan, limit)
                except TimeoutError:
                    self.is_hung = True
                except P2PNodeError as error:
                    self.error = f"{error.kind}: {error}"

    async def _generate(self, client: Client, plan: Plan, limit: asyncio.Timeout) -> None:
        loop, task = asyncio.get_running_loop(), self.task
        plan.at_start()
        options: dict[str, Any] = {"max_tokens": task.max_tokens, "sampling": task.sampling}
        async with aclosing(client.stream(list(task.prompt_ids), **options)) as events:
            async for event in events:
                limit.reschedule(loop.time() + HANGS_AFTER_S)
                if isinstance(event, Token):
                    self.token_ids.append(event.token_id)
                    self.token_times_s.append(loop.time())
                    plan.at_token(len(self.token_ids))
                elif isinstance(event, ChainChosen):
                    plan.at_chain(event.chain)
                elif isinstance(event, Done):
                    self.failovers = event.failovers


class Plan:
    """Makes a run's faults at their moments."""

    def __init__(self, run: MemoryRun, swarm: LocalSwarm, nodes: dict[str, LabNode]) -> None:
        self._run = run
        self._nodes = nodes
        self._faults = MemoryFaults(swarm)
        self._hops: list[LabNode] = []

    def at_start(self) -> None:
        """Before the request: faults in prefill wait for the victim's first forward."""
        for fault in self._run.scenario.faults:
            if fault.at.where is Where.PREFILL:
                self._on_forward(fault)

    def at_chain(self, chain: Chain) -> None:
        """The client has chosen these peers."""
        node_of = {node.peer: node for node in self._nodes.values()}
        self._hops = [node_of[hop.peer] for hop in chain.hops]

    def at_token(self, count: int) -> None:
        """The client has so many tokens."""
        loop = asyncio.get_running_loop()
        for fault in self._run.scenario.faults:
            if fault.at.token != count:
                continue
            if fault.at.where is Where.DECODE:
                self._make(fault)
            elif fault.at.where is Where.IN_FLIGHT:
                loop.call_later(self._half_loop_s(), self._make, fault)

    def _on_forward(self, fault: Fault) -> None:
        """Watch every node that may be the victim; only the first forward of it counts."""
        happened: list[Fault] = []

        def begun(node: LabNode) -> None:
            if not happened and node is self._victim(fault):
                happened.append(fault)
                self._make(fault)

        for node in self._nodes.values():
            node.conditions.watch(functools.partial(begun, node))

    def _make(self, fault: Fault) -> None:
        victim = self._victim(fault)
        if victim is None:
            return
        chain = self._chain()
        hop = chain.index(victim) if victim in chain else None
        self._run.faults.append((fault, asyncio.get_running_loop().time(), hop))
        self._faults.make(fault, victim)

    def _victim(self, fault: Fault) -> LabNode | None:
        if fault.node is not None:
            return self._nodes[fault.node]
        chain = self._chain()
        return chain[fault.hop] if fault.hop is not None and fault.hop < len(chain) else None

    def _chain(self) -> list[LabNode]:
        """What the client said last; before its first token what the nodes know of its session."""
        if self._hops:
            return self._hops
        hops = {start: node for node in self._nodes.values() for start in +node.open_hops}
        return [hops[start] for start in sorted(hops)]

    def _half_loop_s(self) -> float:
        """Until the next token is half way, which has begun before the client knew of the last."""
        scenario = self._run.scenario
        names = {id(node): name for name, node in self._nodes.items()}
        chain = [names[id(node)] for node in self._chain()]
        ways = [scenario.way(a, b) for a, b in itertools.pairwise([*chain, chain[0]])]
        compute_ms = sum(scenario.members[name].compute_ms for name in chain)
        half_ms = (sum(way.delay_ms for way in ways) + compute_ms) / 2
        return max(0.0, half_ms - scenario.way(chain[-1], CLIENT).delay_ms) / 1000


@asynccontextmanager
async def memory_swarm(
    scenario: Scenario, task: Task, cache: Path
) -> AsyncIterator[tuple[LocalSwarm, dict[str, LabNode]]]:
    """The scenario's nodes on its links, serving if they can; by name."""
    names = [*scenario.members, CLIENT]
    peers = [*map(fake_peer_id, range(len(names) - 1)), fake_peer_id(FIRST_CLIENT)]
    config = {"standbys": scenario.standby}
    async with LocalSwarm(
        task.folder, cache=cache, seed=scenario.seed, latency_s=0.0, config=config
    ) as swarm:
        for sender, its_peer in zip(names, peers, strict=True):
            for receiver, other in zip(names, peers, strict=True):
                if sender != receiver:
                    line = line_of(scenario.way(sender, receiver))
                    swarm.network.set_one_way(its_peer, other, line)
        nodes: dict[str, LabNode] = {}
        for name, node in scenario.members.items():
            compute_s = node.compute_ms / 1000
            nodes[name] = swarm.add(
                node.layers,
                latency_s=compute_s or FIGURE_S,
                compute_s=compute_s,
                clock_offset_s=node.clock_offset_s,
            )
        await _until_serving(nodes)
        yield swarm, nodes


async def _until_serving(nodes: dict[str, LabNode]) -> None:
    """Return when all serve, or have had the time to: one whose clock is wrong never will."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STARTS_WITHIN_S):
            for node in nodes.values():
                await node.is_serving.wait()


def line_of(way: Way) -> Line:
    """The in-memory form of a way: jitter is evenly spread around the delay."""
    delay_s = way.delay_ms / 1000
    return Line(
        latency_s=delay_s * (1 - way.jitter),
        jitter_s=2 * delay_s * way.jitter,
        bytes_per_s=way.mbit * BYTES_PER_MBIT,
        loss=way.loss,
    )


@contextmanager
def noted_failures(note: Callable[[], None]) -> Iterator[None]:
    """Call ``note`` whenever a client's session logs that a hop of it has failed."""
    logger = logging.getLogger("p2pnode.pipeline")
    handler = _OnFailure(note)
    level, propagates = logger.level, logger.propagate
    if not logger.isEnabledFor(logging.WARNING):  # then nobody else wants to hear of it
        logger.setLevel(logging.WARNING)
        logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates


class _OnFailure(logging.Handler):
    """Hears the event ``hop failed``."""

    def __init__(self, note: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        if str(record.msg).startswith("hop failed"):
            self._note()
