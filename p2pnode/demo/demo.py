"""The demo from the top: start nodes, tell a story, kill one, compare with the unsplit model."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from p2pnode.client.client import Client
from p2pnode.client.events import ChainChosen, Done, HopCost, Token
from p2pnode.config import ClientConfig, SwarmConfig, home
from p2pnode.errors import LocalError
from p2pnode.model.reference import greedy
from p2pnode.model.source import find_model
from p2pnode.node.processes import NodeProcess, NodeProcesses
from p2pnode.tasks import Tasks
from p2pnode.types import Chain, LayerRange, PeerId

PROMPT = "Once upon a time"
MAX_TOKENS = 120
KILL_AT = 40
"""The answer's token after which a node dies: in the middle of it, and of a sentence."""
FIRST = LayerRange(0, 9)
OTHERS = (LayerRange(9, 18), LayerRange(9, 18), LayerRange(18, 27))
"""Twice the middle: one of these two will be killed, and the other takes its place."""


@dataclass(frozen=True, slots=True)
class NodeReady:
    """A process serves its layers."""

    peer: PeerId
    layers: LayerRange
    after_s: float


@dataclass(frozen=True, slots=True)
class Killed:
    """A node of the chain was killed; its layers are without a peer at this moment."""

    peer: PeerId
    layers: LayerRange
    num_tokens: int
    """Tokens of the answer so far."""
    chain: Chain
    """The one that lost it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """How it went."""

    done: Done
    is_identical: bool
    """Whether the tokens are those of the unsplit model, run in this process."""
    killed: Killed
    stall_s: float
    """From the last token before the death to the first one after it."""
    token_s: float
    """Median time from one token to the next."""
    chain_before: Chain
    chain_after: Chain

    @property
    def hops(self) -> tuple[HopCost, ...]:
        """What each hop of the last chain has spent."""
        return self.done.hops


DemoEvent = NodeReady | ChainChosen | Token | Killed | Story


async def run_demo() -> AsyncGenerator[DemoEvent, None]:
    """Run it, telling what happens as it happens; the `Story` comes last.

    Ends every process that it has started, also when closed or cancelled. Raises LocalError when
    a node does not start.
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    with tempfile.TemporaryDirectory(prefix="p2pnode-demo-") as folder:
        async with NodeProcesses(Path(folder)) as nodes:
            first = await nodes.listen(FIRST)
            async with aclosing(_ready(nodes, first)) as ready:
                async for node in ready:
                    yield NodeReady(_peer(node), node.layers, clock() - began)
            swarm = SwarmConfig(home=home(Path(folder)), join=(first.address,), starts_swarm=False)
            config = ClientConfig(swarm=swarm, cache=swarm.home.cache)
            async with (
                Client(config=config) as client,
                aclosing(_tell(client, nodes, config.cache)) as story,
            ):
                async for event in story:
                    yield event


async def _ready(nodes: NodeProcesses, first: NodeProcess) -> AsyncGenerator[NodeProcess, None]:
    """Start the other nodes; yields each, and the first one, when it serves."""
    ready: asyncio.Queue[NodeProcess] = asyncio.Queue()

    async def serve(node: NodeProcess) -> None:
        await nodes.serve(node)
        ready.put_nowait(node)

    async def start(layers: LayerRange) -> None:
        await serve(await nodes.listen(layers, join=first.address))

    async with Tasks() as tasks:
        tasks.start(serve(first), name="first")
        for layers in OTHERS:
            tasks.start(start(layers), name=f"start-{layers}")
        for _ in range(1 + len(OTHERS)):
            yield await ready.get()


def _peer(node: NodeProcess) -> PeerId:
    if node.peer is None:
        raise LocalError(f"the node for layers {node.layers} did not say who it is")
    return node.peer


@dataclass(slots=True)
class _Course:
    """What has happened in the story so far."""

    chains: list[Chain] = field(default_factory=list)
    came_at: list[float] = field(default_factory=list)
    killed: Killed | None = None
    text: str = ""

    @property
    def is_mid_sentence(self) -> bool:
        return not self.text.rstrip().endswith((".", "!", "?", '"'))

    def gaps_s(self) -> list[float]:
        """From each token to the next."""
        return [b - a for a, b in zip(self.came_at, self.came_at[1:], strict=False)]


async def _tell(
    client: Client, nodes: NodeProcesses, cache: Path
) -> AsyncGenerator[DemoEvent, None]:
    """The story; kills a node of its chain in mid-sentence."""
    clock = asyncio.get_running_loop().time
    course = _Course()
    async with aclosing(client.stream(PROMPT, max_tokens=MAX_TOKENS)) as events:
        async for event in events:
            if isinstance(event, Done):
                yield await _judge(client, event, course, cache)
                return
            if isinstance(event, ChainChosen):
                course.chains.append(event.chain)
            else:
                course.came_at.append(clock())
                course.text += event.text
            yield event
            is_due = len(course.came_at) >= KILL_AT and course.is_mid_sentence
            if is_due and course.killed is None:
                course.killed = _kill(course, nodes)
                yield course.killed


def _kill(course: _Course, nodes: NodeProcesses) -> Killed:
    chain = course.chains[-1]
    hop = chain.hops[1]
    nodes.of(hop.peer).kill()
    return Killed(hop.peer, hop.layers, len(course.came_at), chain)


async def _judge(client: Client, done: Done, course: _Course, cache: Path) -> Story:
    """Compare with the model in one piece, run by transformers in this process."""
    if course.killed is None:
        raise LocalError(f"the story ended after {len(done.token_ids)} tokens, before the death")
    loop = asyncio.get_running_loop()
    expected = await loop.run_in_executor(None, _unsplit, client, cache)
    gaps_s = course.gaps_s()
    return Story(
        done=done,
        is_identical=list(done.token_ids) == expected,
        killed=course.killed,
        stall_s=gaps_s[course.killed.num_tokens - 1],
        token_s=median(gaps_s),
        chain_before=course.killed.chain,
        chain_after=course.chains[-1],
    )


def _unsplit(client: Client, cache: Path) -> list[int]:
    codec = client.model.codec
    folder = find_model(None, cache=cache).folder
    return greedy(folder, codec.encode(PROMPT), MAX_TOKENS, codec.eos_token_ids)
