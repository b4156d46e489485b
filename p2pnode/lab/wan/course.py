"""One run as the lab sees it: tokens and their times, the chain, faults at their moments."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from p2pnode.lab.scenario import CLIENT, Fault, Where
from p2pnode.lab.seen import Seen
from p2pnode.lab.wan.client import WanClient
from p2pnode.lab.wan.faults import WanFaults
from p2pnode.lab.wan.machines import Machine
from p2pnode.lab.wan.worker import Generate
from p2pnode.tasks import Tasks
from p2pnode.types import LayerRange

FAILED_HOP = "hop failed"
"""What the client logs when it gives up on a hop."""
READING_S = 0.002
"""How long after its arrival the prompt is being read."""


@dataclass(slots=True, eq=False)
class Course(Seen):
    """What has happened so far. All times are those of `time.monotonic`."""

    machines: Mapping[str, Machine] = field(kw_only=True)
    hops: list[Machine] = field(default_factory=list)
    """The chain, as the client said last."""
    victims: list[Machine] = field(default_factory=list)
    """Of ``faults``, one by one."""

    async def follow(
        self, client: WanClient, request: Generate, faults: WanFaults, tasks: Tasks
    ) -> None:
        """Generate, and make the scenario's faults on the way; ``tasks`` own their waits."""
        opened: asyncio.Queue[tuple[Machine, LayerRange]] = asyncio.Queue()
        for machine in self.machines.values():
            machine.on_session = lambda machine, fields: opened.put_nowait(
                (machine, LayerRange.parse(fields["layers"]))
            )
        early = [fault for fault in self.scenario.faults if fault.at.where is Where.PREFILL]
        if early:
            tasks.start(self._in_prefill(opened, early, faults), name="prefill")
        async with aclosing(client.generate(request)) as events:
            async for event in events:
                self._note(event)
                if event["event"] == "token":
                    await self._at_token(len(self.token_ids), faults, tasks)

    def _note(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "token":
                self.token_ids.append(event["token_id"])
                self.token_times_s.append(event["at_s"])
            case "chain":
                machine_of = {machine.peer: machine for machine in self.machines.values()}
                self.hops = [machine_of[hop["peer"]] for hop in event["hops"]]
            case "trouble" if event["what"] == FAILED_HOP:
                self.failures_s.append(event["at_s"])
            case "done":
                self.failovers = event["failovers"]
            case "failed":
                self.error = f"{event['kind']}: {event['message']}"

    # --- faults at their moments

    async def _at_token(self, count: int, faults: WanFaults, tasks: Tasks) -> None:
        for fault in self.scenario.faults:
            if fault.at.token != count:
                continue
            if fault.at.where is Where.DECODE:
                await self._make(fault, faults)
            elif fault.at.where is Where.IN_FLIGHT:
                tasks.start(self._in_flight(fault, faults), name="in-flight")

    async def _in_flight(self, fault: Fault, faults: WanFaults) -> None:
        gaps = [b - a for a, b in itertools.pairwise(self.token_times_s)]
        loop_s = median(gaps) if gaps else self._delay_s([CLIENT, *self._names(), CLIENT])
        await asyncio.sleep(loop_s / 2)
        await self._make(fault, faults)

    async def _in_prefill(
        self,
        opened: asyncio.Queue[tuple[Machine, LayerRange]],
        early: list[Fault],
        faults: WanFaults,
    ) -> None:
        """Wait until every hop has its session, and the prompt has come to the victim.

        Whoever opens a layer first is the hop: standbys come later.
        """
        found: dict[int, tuple[Machine, LayerRange]] = {}
        reached = 0
        while reached < self.task.spec.num_layers:
            machine, layers = await opened.get()
            found.setdefault(layers.start, (machine, layers))
            reached = _reach(found)
        began = time.monotonic()
        self.hops = [found[start][0] for start in sorted(found)]
        for fault in early:
            victim = self._victim(fault)
            if victim is None:
                continue
            place = self.hops.index(victim) if victim in self.hops else 0
            # The client hears that the hops are ready, then sends; each hop passes it on.
            way = [self.hops[-1].name, CLIENT, *self._names()[: place + 1]]
            due = began + self._delay_s(way) + READING_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._make(fault, faults)

    async def _make(self, fault: Fault, faults: WanFaults) -> None:
        victim = self._victim(fault)
        if victim is None:
            return
        hop = self.hops.index(victim) if victim in self.hops else None
        self.faults.append((fault, time.monotonic(), hop))
        self.victims.append(victim)
        await faults.make(fault, victim)

    def _victim(self, fault: Fault) -> Machine | None:
        if fault.node is not None:
            return self.machines[fault.node]
        is_there = fault.hop is not None and fault.hop < len(self.hops)
        return self.hops[fault.hop or 0] if is_there else None

    def _names(self) -> list[str]:
        return [machine.name for machine in self.hops]

    def _delay_s(self, places: list[str]) -> float:
        ways = [self.scenario.way(a, b) for a, b in itertools.pairwise(places)]
        return sum(way.delay_ms for way in ways) / 1e3


def _reach(found: Mapping[int, tuple[Machine, LayerRange]]) -> int:
    """How many layers from the first on have a session without a gap."""
    reached = 0
    while reached in found and len(found[reached][1]):
        reached = found[reached][1].stop
    return reached
