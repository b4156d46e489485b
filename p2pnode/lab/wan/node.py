"""A node under conditions: the real `Node` on the real network, whose faults are told by stdin.

``python -m p2pnode.lab.wan.node`` reads `Begin`, then any number of `Change`, a line each, and
prints the node's events as ``p2pnode serve --json`` does. For what cannot be done to a process
from outside: a wall clock that is wrong, frames that come out wrong, a device out of memory, a
block that computes for longer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import uvloop

from p2pnode import log
from p2pnode.config import NodeConfig, SwarmConfig, home
from p2pnode.errors import LocalError, P2PNodeError
from p2pnode.lab.conditions import Conditions, LabBlock, LabTransport, compute_whole
from p2pnode.lab.wan.records import MAX_LINE_BYTES, decode
from p2pnode.node.node import Node
from p2pnode.node.server import BlockServer
from p2pnode.swarm.network import Joined, Network
from p2pnode.swarm.p2p_network import node_network
from p2pnode.tasks import Tasks
from p2pnode.types import LayerRange

DEFAULTS = NodeConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """What to serve; the first line."""

    layers: str
    home: str
    join: tuple[str, ...] = ()
    model: str | None = None
    dtype: str = "float32"
    prefill_chunk_tokens: int = DEFAULTS.prefill_chunk_tokens
    compute_s: float = 0.0
    """A step needs so much more of a processor than it does."""
    clock_offset_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """From now on."""

    clock_offset_s: float | None = None
    is_corrupt: bool | None = None
    oom_steps: int | None = None
    is_whole: bool | None = None
    """Whether to compute a step in one piece, however long it is."""


BURN_WIDTH = 128
KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Begin, Change)}


class OddClock:
    """A wall clock that the lab can put forward or back."""

    def __init__(self, offset_s: float) -> None:
        self.offset_s = offset_s

    def __call__(self) -> float:
        """Seconds since the epoch, as this node believes."""
        return time.time() + self.offset_s


class BurningConditions(Conditions):
    """Conditions whose compute time is the processor's."""

    def use(self, loop: asyncio.AbstractEventLoop) -> None:
        """See `Conditions.use`."""
        super().use(loop)
        self._spend = burn


class OddNetwork:
    """The real network, seen through `LabTransport`."""

    def __init__(self, network: Network, conditions: Conditions) -> None:
        self._network = network
        self._conditions = conditions

    @asynccontextmanager
    async def join(self) -> AsyncIterator[Joined]:
        """See `Network.join`."""
        async with self._network.join() as joined:
            yield replace(joined, transport=LabTransport(joined.transport, self._conditions))


class OddNode(Node):
    """A node whose block is under conditions, too."""

    conditions: Conditions

    async def _prepare(self, joined: Joined, layers: LayerRange) -> BlockServer:
        server = await super()._prepare(joined, layers)
        return replace(server, block=LabBlock(server.block, self.conditions))


def burn(seconds: float) -> None:
    """Use the processor for so long, without keeping others from the interpreter.

    Processor time, not time: a process that is stopped most of the time takes longer.
    """
    matrix = torch.ones(BURN_WIDTH, BURN_WIDTH)
    ends = time.thread_time() + seconds
    while time.thread_time() < ends:
        torch.mm(matrix, matrix)


async def run() -> None:
    """The program."""
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    begin = decode(await commands.readline(), KINDS)
    clock = OddClock(begin.clock_offset_s)
    conditions = BurningConditions(compute_s=begin.compute_s)
    conditions.use(loop)
    folder = home(Path(begin.home))
    config = NodeConfig(
        model=begin.model,
        layers=LayerRange.parse(begin.layers),
        device="cpu",
        dtype=begin.dtype,
        cache=folder.cache,
        wall_clock=clock,
        prefill_chunk_tokens=begin.prefill_chunk_tokens,
    )
    network = node_network(SwarmConfig(home=folder, join=begin.join), wall_clock=clock)
    node = OddNode(config, OddNetwork(network, conditions), say)
    node.conditions = conditions
    try:
        async with Tasks() as tasks:
            tasks.start(_obey(commands, conditions, clock), name="commands")
            await node.run()
    except P2PNodeError as error:
        say("error", {"kind": error.kind, "message": str(error)})


async def _obey(commands: asyncio.StreamReader, conditions: Conditions, clock: OddClock) -> None:
    async for line in commands:
        change = decode(line, KINDS)
        if not isinstance(change, Change):
            raise LocalError("the lab has begun already")
        if change.clock_offset_s is not None:
            clock.offset_s = change.clock_offset_s
        if change.is_corrupt is not None:
            conditions.is_corrupt = change.is_corrupt
        if change.oom_steps is not None:
            conditions.oom_steps = change.oom_steps
        if change.is_whole is not None:
            compute_whole(is_whole=change.is_whole)


def say(event: str, fields: dict[str, Any]) -> None:
    """One event (`OnEvent`), at once."""
    if event != "loading":
        sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
        sys.stdout.flush()


def main() -> None:
    """The program."""
    log.setup("info")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


if __name__ == "__main__":
    main()
