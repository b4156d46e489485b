"""A swarm that loses a node and gains one all the time, under constant load, for a long time.

`run` is one soak. Its state is a line of the record after each death; run again with the same
record it goes on where it was.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from p2pnode.errors import BadRequest, DiskFull
from p2pnode.lab.presets import PRESETS
from p2pnode.lab.reference import Task, prepare
from p2pnode.lab.scenario import CLIENT, Node, Request, Scenario
from p2pnode.lab.wan.client import WanClient
from p2pnode.lab.wan.machines import Duty, Machine
from p2pnode.lab.wan.packets import Line
from p2pnode.lab.wan.runner import request_of
from p2pnode.lab.wan.swarm import BOOTSTRAP, Place, WanSwarm
from p2pnode.lab.wan.tally import SoakResult, victims
from p2pnode.lab.wan.watch import Holdings, Watch
from p2pnode.lab.wan.worker import Join
from p2pnode.tasks import Tasks
from p2pnode.types import LayerRange

PERIOD_S = 20.0
"""One node dies and one joins."""
RANGES = ("0-8", "9-17", "18-26")
NUM_NODES = 8
LINK = PRESETS["fiber"]
NUM_READERS = 2
"""Requests that are under way at any time."""
NUM_TASKS = 12
MAX_TOKENS = 40
TEMPERATURE = 0.8
HANGS_AFTER_S = 120.0
RETRY_S = 1.0
"""Who got no answer does not ask again at once."""
MAX_REASON = 200
SETTLED_WITHIN_S = 90.0
QUIET_S = 8.0
"""After the last request: a client that goes away frees every hop within 5 s."""

Note = Callable[[str], None]


async def run(
    minutes: float,
    cache: Path,
    note: Note,
    *,
    seed: int = 0,
    record: Path | None = None,
    commit: str = "unknown",
) -> SoakResult:
    """Soak for so long. note: told what happens, in lines; record: a file, see above.

    Goes on only where the same commit was interrupted with the same seed; not where the commit is
    unknown or has changes on top. Raises NoNamespaces where this machine does not allow it,
    LocalError when a node cannot start.
    """
    fresh = SoakResult(seed=seed, commit=commit)
    before = read_checkpoint(record)
    if before is None or not _goes_on(before, fresh):
        before = fresh
    left_s = max(PERIOD_S, (minutes - before.minutes) * 60.0)
    requests = await asyncio.to_thread(_requests, cache, seed)
    async with WanSwarm(seed=seed) as swarm:
        soak = Soak(swarm, requests, before, note)
        await soak.prepare()
        return await soak.soak(left_s, record)


def _goes_on(before: SoakResult, fresh: SoakResult) -> bool:
    is_known = fresh.commit != "unknown" and not fresh.commit.endswith("-dirty")
    is_same = (before.commit, before.seed) == (fresh.commit, fresh.seed)
    return is_known and is_same and not before.is_complete


class Soak:
    """One part of a soak, on one swarm."""

    def __init__(
        self, swarm: WanSwarm, requests: list[Task], before: SoakResult, note: Note
    ) -> None:
        self._swarm = swarm
        self._requests = requests
        self._before = before
        self._result = before
        self._note = note
        # A part that goes on does not kill the same ones again.
        self._rng = random.Random(before.seed * 1_000_003 + before.kills)
        self._names = itertools.count(1)
        self._is_over = False
        self._began = 0.0
        self._watch = Watch(swarm, asyncio.get_running_loop().time)
        self._client: WanClient

    async def prepare(self) -> None:
        """Start everybody, one after the other, and make one answer."""
        for name in (CLIENT, BOOTSTRAP):
            await self._place(name)
        await self._swarm.serve(BOOTSTRAP, Duty(layers=None))
        for layers in itertools.islice(itertools.cycle(RANGES), NUM_NODES):
            await self._join(LayerRange.parse(layers))
        self._client = await self._swarm.client(CLIENT, Join(join=(), home=""))
        self._note(f"{NUM_NODES} nodes serve")

    async def soak(self, seconds: float, record: Path | None) -> SoakResult:
        """Let it run for so long, then see what is left."""
        clock = asyncio.get_running_loop().time
        # What the first request opens for good is no leak.
        await self._ask(self._requests[0])
        await asyncio.sleep(QUIET_S)
        before = await self._watch.holdings(self._client)
        self._began = clock()
        async with Tasks() as tasks:
            tasks.start(self._watch.run(), name="watch")
            readers = [
                tasks.start(self._read(number), name=f"reader-{number}")
                for number in range(NUM_READERS)
            ]
            await self._churn(seconds, record)
            self._is_over = True
            await asyncio.wait(readers)
        self._measure(seconds)
        for name, slope in self._watch.slopes(seconds).items():
            self._note(f"memory of {name}: {slope:+.2f} MB/min")
        found = await self._left(before)
        leaks: dict[str, Any] = {
            name: getattr(self._before, name) + number for name, number in found.items()
        }
        leaked = sum(leaks.values())
        self._result = replace(self._result, **leaks, leaked=leaked, is_complete=True)
        write_checkpoint(record, self._result)
        return self._result

    async def _left(self, before: Holdings) -> dict[str, int]:
        """What is held for good: dials to those that died last may go on for a minute."""
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + SETTLED_WITHIN_S
        while True:
            await asyncio.sleep(QUIET_S)
            found = await self._watch.leaks(self._client, before)
            if not any(found.values()) or clock() > give_up_at:
                return found

    # --- the load

    async def _read(self, number: int) -> None:
        rng = random.Random(self._result.seed + number)
        while not self._is_over:
            await self._ask(rng.choice(self._requests))

    async def _ask(self, task: Task) -> None:
        """One request, and what came of it."""
        outcome, failovers, what = "hung", 0, f"no end after {HANGS_AFTER_S:g} s"
        token_ids: list[int] = []
        try:
            async with (
                asyncio.timeout(HANGS_AFTER_S),
                aclosing(self._client.generate(request_of(task))) as events,
            ):
                async for event in events:
                    match event["event"]:
                        case "token":
                            token_ids.append(event["token_id"])
                        case "done":
                            outcome = "right" if tuple(token_ids) == task.expected else "wrong"
                            failovers, what = event["failovers"], f"{len(token_ids)} tokens"
                        case "failed":
                            outcome, what = "failed", f"{event['kind']}: {event['message']}"
        except TimeoutError:
            pass
        self._add(requests=1, failovers=failovers, **{outcome: 1})
        if outcome != "right":
            self._note(f"{outcome}: {what}")
            self._result = replace(self._result, last_failure=f"{outcome}: {what[:MAX_REASON]}")
            await asyncio.sleep(RETRY_S)

    def _add(self, **more: Any) -> None:
        sums: dict[str, Any] = {
            name: getattr(self._result, name) + number for name, number in more.items()
        }
        self._result = replace(self._result, **sums)

    # --- the churn

    async def _churn(self, seconds: float, record: Path | None) -> None:
        clock = asyncio.get_running_loop().time
        ends = self._began + seconds
        for turn in itertools.count(1):
            due = min(self._began + turn * PERIOD_S, ends)
            await asyncio.sleep(max(0.0, due - clock()))
            if clock() >= ends:
                return
            await self._join(await self._kill_one())
            self._add(kills=1, joins=1)
            self._measure(seconds)
            write_checkpoint(record, self._result)

    async def _kill_one(self) -> LayerRange:
        """SIGKILL of agent and daemon; returns the layers that it served."""
        layers_of = {
            name: machine.duty.layers
            for name, machine in self._swarm.machines.items()
            if machine.duty.layers is not None
        }
        name = self._rng.choice(victims(layers_of))
        await self._kill(self._swarm.machines[name])
        self._note(f"killed {name}, layers {layers_of[name]}; {self._result.requests} requests")
        return layers_of[name]

    async def _kill(self, machine: Machine) -> None:
        if machine.daemon is not None:
            self._watch.dead.append(machine.daemon)
        machine.send(signal.SIGKILL)
        await self._swarm.end(machine)
        await self._swarm.remove(machine)

    async def _join(self, layers: LayerRange) -> None:
        name = f"n{next(self._names)}"
        await self._place(name)
        await self._swarm.serve(name, Duty(layers=layers))

    async def _place(self, name: str) -> None:
        others = [*self._swarm.machines, CLIENT] if name != CLIENT else []
        await self._swarm.place(name, Place(link=LINK))
        line = Line(delay_s=LINK.delay_ms / 1e3)
        pairs = [(name, other) for other in others]
        lines = dict.fromkeys([*pairs, *((b, a) for a, b in pairs)], line)
        await self._swarm.network.set_lines(lines)

    def _measure(self, seconds: float) -> None:
        """Bring time and slopes up to date."""
        passed_s = asyncio.get_running_loop().time() - self._began
        slopes = self._watch.slopes(seconds)
        known = [(slope, name) for name, slope in slopes.items()]
        before = self._before.rss_slope_mb_per_min, self._before.steepest
        steepest, whose = max([before, *known])
        self._result = replace(
            self._result,
            minutes=self._before.minutes + passed_s / 60.0,
            rss_slope_mb_per_min=round(steepest, 3),
            steepest=whose,
            slopes=self._before.slopes + len(slopes),
        )


def read_checkpoint(record: Path | None) -> SoakResult | None:
    """Where an earlier run was; None without one. Raises BadRequest when the file is not ours."""
    if record is None or not record.exists():
        return None
    lines = record.read_text().splitlines()
    for line in reversed(lines[-2:]):  # the last one may be cut off
        try:
            return SoakResult.from_json(line)
        except BadRequest:
            continue
    raise BadRequest(f"{record} is no record of a soak; remove it, or name another file")


def write_checkpoint(record: Path | None, result: SoakResult) -> None:
    """Add a line; raises DiskFull when it cannot be written."""
    if record is None:
        return
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        with record.open("a") as file:
            file.write(result.to_json() + "\n")
    except OSError as error:
        raise DiskFull(f"{record} cannot be written ({error.strerror}); make room") from None


def _requests(cache: Path, seed: int) -> list[Task]:
    """Requests with known answers, half of them seeded."""
    nodes = tuple(
        Node(name=f"r{index}", layers=LayerRange.parse(text)) for index, text in enumerate(RANGES)
    )
    found = []
    for number in range(NUM_TASKS):
        request = Request(
            prompt_tokens=4 + 3 * number,
            max_tokens=MAX_TOKENS,
            temperature=TEMPERATURE * (number % 2),
            seed=seed + number,
        )
        scenario = Scenario(
            name="soak", nodes=nodes, client=request, seed=seed + number, model="builtin"
        )
        found.append(prepare(scenario, cache))
    return found
