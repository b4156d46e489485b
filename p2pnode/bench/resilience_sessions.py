"""Single sessions in which a hop leaves or dies, or nothing happens; on either kind of lab."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from p2pnode.bench.resilience_rows import Setup
from p2pnode.client.client import Client
from p2pnode.client.events import ChainChosen, Done, Token
from p2pnode.errors import P2PNodeError
from p2pnode.lab.memory_runner import memory_swarm, noted_failures
from p2pnode.lab.reference import Task, prepare
from p2pnode.lab.scenario import Scenario
from p2pnode.lab.swarm import LabNode, LocalSwarm
from p2pnode.lab.virtual_time import run_virtual

HANGS_AFTER_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What happens in one session."""

    deed: str | None = None
    """``leave`` or ``kill``."""
    token: int = 0
    """When the client has so many."""
    hop: int = 0
    standby: bool = True


@dataclass(slots=True, eq=False)
class Session:
    """What was seen of one. All times are on one clock."""

    expected: tuple[int, ...]
    began_s: float
    token_ids: list[int] = field(default_factory=list)
    token_times_s: list[float] = field(default_factory=list)
    peers: tuple[str, ...] = ()
    """Of the chain, as it was chosen last."""
    deed_at_s: float | None = None
    peers_at_deed: tuple[str, ...] = ()
    """To whom it was done."""
    failures_s: list[float] = field(default_factory=list)
    """When the client gave up on a hop."""
    error: str | None = None

    @property
    def is_right(self) -> bool:
        """Whether the text is complete and the right one."""
        return self.error is None and tuple(self.token_ids) == self.expected

    @property
    def ttft_s(self) -> float:
        """Time to the first token; ValueError when none came."""
        if not self.token_times_s:
            raise ValueError(f"no token came: {self.error}")
        return self.token_times_s[0] - self.began_s

    @property
    def tokens_per_s(self) -> float:
        """Of the tokens after the first; ValueError when there is none."""
        times = self.token_times_s
        if len(times) < 2:
            raise ValueError(f"no second token came: {self.error}")
        return (len(times) - 1) / (times[-1] - times[0])

    @property
    def detection_s(self) -> float | None:
        """From the deed until the client gave up on a hop."""
        if self.deed_at_s is None:
            return None
        return next((at - self.deed_at_s for at in self.failures_s if at >= self.deed_at_s), None)


RunSession = Callable[[Scenario, Turn], Awaitable[Session]]


@asynccontextmanager
async def sessions(setup: Setup) -> AsyncIterator[RunSession]:
    """Something that runs sessions, one at a time."""
    async with AsyncExitStack() as stack:
        if setup.transport == "memory":
            yield functools.partial(_in_memory, setup)
        else:
            from p2pnode.bench.resilience_wan import SessionLab  # Linux only

            lab = await stack.enter_async_context(SessionLab(setup.cache, commit=setup.commit))
            yield lab.session


async def _in_memory(setup: Setup, scenario: Scenario, turn: Turn) -> Session:
    running = asyncio.get_running_loop().run_in_executor(None, _run, setup, scenario, turn)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])  # so that it cleans up behind itself
        raise


def _run(setup: Setup, scenario: Scenario, turn: Turn) -> Session:
    task = prepare(scenario, setup.cache)
    return run_virtual(_session(setup, scenario, task, turn))


async def _session(setup: Setup, scenario: Scenario, task: Task, turn: Turn) -> Session:
    async with memory_swarm(scenario, task, setup.cache) as (swarm, _), swarm.client() as client:
        return await generate(swarm, client, task, turn)


async def generate(swarm: LocalSwarm, client: Client, task: Task, turn: Turn) -> Session:
    """One session in an in-memory swarm."""
    clock = asyncio.get_running_loop().time
    session = Session(task.expected, clock())
    options: dict[str, Any] = {"max_tokens": task.max_tokens, "sampling": task.sampling}
    stream: AsyncGenerator[Any, None] = client.stream(list(task.prompt_ids), **options)
    with noted_failures(lambda: session.failures_s.append(clock())):
        try:
            async with asyncio.timeout(HANGS_AFTER_S), aclosing(stream) as events:
                async for event in events:
                    if isinstance(event, ChainChosen):
                        session.peers = tuple(hop.peer for hop in event.chain.hops)
                    elif isinstance(event, Token):
                        session.token_ids.append(event.token_id)
                        session.token_times_s.append(clock())
                        if len(session.token_ids) == turn.token and turn.deed:
                            session.deed_at_s = clock()
                            _do(swarm, turn, _node(swarm, session.peers[turn.hop]))
                    elif isinstance(event, Done):
                        break
        except (P2PNodeError, TimeoutError) as error:
            session.error = f"{type(error).__name__}: {error}"
    return session


def _node(swarm: LocalSwarm, peer: str) -> LabNode:
    return next(node for node in swarm.nodes if node.peer == peer)


def _do(swarm: LocalSwarm, turn: Turn, node: LabNode) -> None:
    if turn.deed == "leave":
        node.leaving.set()
    else:
        swarm.kill(node)
