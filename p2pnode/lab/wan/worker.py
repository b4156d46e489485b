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

from p2pnode.client.events import ChainChosen, Done, Token
from p2pnode.client.request import Request
from p2pnode.config import ClientConfig, SwarmConfig, home
from p2pnode.errors import P2PNodeError
from p2pnode.lab.oracle import Oracle
from p2pnode.lab.wan.records import MAX_LINE_BYTES, decode
from p2pnode.lab.wan.sessions import MeasuringClient, Told
from p2pnode.pipeline.policy import Policy
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
    draft: str = "none"
    """See `ClientConfig.draft`."""
    prefill_chunk_tokens: int = 0
    """0: as many as sessions find best."""
    keeps_prefixes: bool = False
    """See `ClientConfig.keeps_prefixes`; here prompts are repeated, to be computed each time."""
    is_mediated: bool = False
    """Whether hops answer the client, which carries each step on."""
    has_ring: bool = True
    """Whether the last hop hands each token to the first one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleOptions:
    """See `lab.oracle.Oracle`."""

    line: tuple[int, ...] = ()
    """Prompt and answer; empty: no oracle."""
    share: float = 0.0
    token_ms: float = 1.0
    seed: int = 0


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
    oracle: OracleOptions = OracleOptions()
    """Guesses, in the place of the client's own drafter."""
    window: int = 0
    """Guesses per synchronous window; 0: windows do not wait for each other."""


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

    def __init__(self, client: MeasuringClient) -> None:
        self._client = client
        self._running: dict[int, asyncio.Task[None]] = {}
        self._cancelled: set[int] = set()

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
                            self._cancelled.add(command.id)
                            self._running[command.id].cancel()
                    case Census():
                        say("census", **census())

    async def _generate(self, command: Generate) -> None:
        try:
            await self._tell(command)
        except P2PNodeError as error:
            say("failed", id=command.id, kind=error.kind, message=str(error))
        except asyncio.CancelledError:
            if command.id in self._cancelled:  # else we end, and our log will say why
                say("failed", id=command.id, kind="Cancelled", message="cancelled")
            raise
        finally:
            del self._running[command.id]
            self._cancelled.discard(command.id)

    async def _tell(self, command: Generate) -> None:
        sampling = Sampling(
            temperature=command.temperature,
            top_k=command.top_k,
            top_p=command.top_p,
            seed=command.seed,
        )
        drafter = self._drafter(command, sampling)
        stream = self._client.stream(
            command.prompt_ids, max_tokens=command.max_tokens, sampling=sampling, drafter=drafter
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
                        say("done", id=command.id, **_sums(event, drafter))

    def _drafter(self, command: Generate, sampling: Sampling) -> Told | None:
        prompt_ids, options = list(command.prompt_ids), command.oracle
        request = Request(prompt_ids=prompt_ids, max_tokens=command.max_tokens, sampling=sampling)
        drafter = self._client.model.drafter(request)
        if options.line:
            token_s = options.token_ms / 1e3
            drafter = Oracle(options.line, options.share, token_s=token_s, seed=options.seed)
        return None if drafter is None else Told(drafter, command.window)


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


def _sums(done: Done, told: Told | None) -> dict[str, Any]:
    """The end of an answer, and where its time went."""
    policy = Policy() if told is None or told.policy is None else told.policy
    return {
        "token_ids": list(done.token_ids),
        "failovers": done.failovers,
        "ttft_s": done.ttft_s,
        "hops": [
            {"num_steps": hop.num_steps, "queue_s": hop.queue_s, "compute_s": hop.compute_s}
            for hop in done.hops
        ],
        "num_right": policy.num_right,
        "num_wrong": policy.num_wrong,
        "draft_s": policy.draft_s,
    }


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
    config = ClientConfig(
        swarm=swarm,
        cache=swarm.home.cache,
        standbys=join.standby,
        draft=join.draft,
        keeps_prefixes=join.keeps_prefixes,
    )
    log = logging.getLogger("p2pnode")
    log.addHandler(TroubleTeller(logging.WARNING))
    log.setLevel(logging.WARNING)
    log.propagate = False
    try:
        client = MeasuringClient(
            is_mediated=join.is_mediated,
            has_ring=join.has_ring,
            chunk_tokens=join.prefill_chunk_tokens,
            model=join.model,
            config=config,
        )
        async with client:
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
