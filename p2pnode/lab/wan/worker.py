"""A client's process: keeps one `p2pnode.Client` open and generates on request.

``python -m p2pnode.lab.wan.worker`` reads `Join`, then `Generate`, `Cancel` and `Census`, a line
each, and prints events, a line each, with times on the clock that all processes of a machine
share (`time.monotonic`). It ends when its stdin does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from p2pnode.client.client import Client
from p2pnode.client.events import ChainChosen, Done, Token
from p2pnode.config import ClientConfig, SwarmConfig, home
from p2pnode.errors import P2PNodeError
from p2pnode.lab.wan.records import MAX_LINE_BYTES, decode
from p2pnode.tasks import Tasks
from p2pnode.types import Chain, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """Enter the swarm; the first line."""

    join: tuple[str, ...]
    home: str
    model: str | None = None
    standby: bool = True
    """Whether to keep standbys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generate:
    """Make an answer."""

    id: int
    prompt_ids: tuple[int, ...]
    max_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Stop making it."""

    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """Say what there is of tasks, threads and descriptors."""


KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Join, Generate, Cancel, Census)}


class Worker:
    """One client, many generations."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._running: dict[int, asyncio.Task[None]] = {}

    async def run(self, commands: asyncio.StreamReader) -> None:
        """Until the commands end."""
        async with Tasks() as tasks:
            async for line in commands:
                command = decode(line, KINDS)
                match command:
                    case Generate():
                        task = tasks.start(self._generate(command), name=f"answer-{command.id}")
                        self._running[command.id] = task
                    case Cancel():
                        if command.id in self._running:
                            self._running[command.id].cancel()
                    case Census():
                        say("census", **census())

    async def _generate(self, command: Generate) -> None:
        try:
            await self._tell(command)
        except P2PNodeError as error:
            say("failed", id=command.id, kind=error.kind, message=str(error))
        except asyncio.CancelledError:
            say("failed", id=command.id, kind="Cancelled", message="cancelled")
            raise
        finally:
            del self._running[command.id]

    async def _tell(self, command: Generate) -> None:
        sampling = Sampling(
            temperature=command.temperature,
            top_k=command.top_k,
            top_p=command.top_p,
            seed=command.seed,
        )
        stream = self._client.stream(
            command.prompt_ids, max_tokens=command.max_tokens, sampling=sampling
        )
        async with aclosing(stream) as events:
            async for event in events:
                match event:
                    case Token():
                        say("token", id=command.id, token_id=event.token_id)
                    case ChainChosen():
                        hops = _hops(event.chain)
                        say("chain", id=command.id, hops=hops, failovers=event.failovers)
                    case Done():
                        made = list(event.token_ids)
                        say("done", id=command.id, token_ids=made, failovers=event.failovers)


class TroubleTeller(logging.Handler):
    """Turns the client's log of handled trouble into events, with their time."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        say("trouble", what=str(record.msg).partition(":")[0], text=record.getMessage()[:300])


def census() -> dict[str, int]:
    """What this process holds."""
    return {
        "num_tasks": len(asyncio.all_tasks()),
        "num_descriptors": len(os.listdir("/proc/self/fd")),
        "num_threads": len(os.listdir("/proc/self/task")),
    }


def say(event: str, **fields: Any) -> None:
    """One event, at once: another process waits for it."""
    line = json.dumps({"event": event, "at_s": time.monotonic(), **fields})
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _hops(chain: Chain) -> list[dict[str, Any]]:
    return [
        {"peer": hop.peer, "layers": str(hop.layers), "is_carried": hop.is_carried}
        for hop in chain.hops
    ]


async def run() -> None:
    """The program."""
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    join = decode(await commands.readline(), KINDS)
    swarm = SwarmConfig(home=home(Path(join.home)), join=join.join, starts_swarm=False)
    options = {"standbys": join.standby} if "standbys" in ClientConfig.__slots__ else {}
    config = ClientConfig(swarm=swarm, cache=swarm.home.cache, **options)
    log = logging.getLogger("p2pnode")
    log.addHandler(TroubleTeller(logging.WARNING))
    log.setLevel(logging.WARNING)
    log.propagate = False
    try:
        async with Client(model=join.model, config=config) as client:
            say("joined")
            await Worker(client).run(commands)
    except P2PNodeError as error:
        say("failed", id=-1, kind=error.kind, message=str(error))


def main() -> None:
    """The program."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


if __name__ == "__main__":
    main()
