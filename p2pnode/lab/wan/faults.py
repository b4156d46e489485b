"""Faults on real processes and real lines; `p2pnode.lab.faults` says what each kind is."""

from __future__ import annotations

import asyncio
import signal
import time

from p2pnode.lab.faults import LOSS, PARTITION_S, SLOW_FACTOR, THIN_MBIT
from p2pnode.lab.scenario import Fault, FaultKind
from p2pnode.lab.wan.machines import Machine
from p2pnode.lab.wan.network import BYTES_PER_MBIT, QUEUE_S
from p2pnode.lab.wan.node import Change
from p2pnode.lab.wan.packets import Access
from p2pnode.lab.wan.swarm import WanSwarm
from p2pnode.tasks import Tasks

RUNS_S = 0.001
"""A turn of the duty cycle is `SLOW_FACTOR` times as long, and at most 10 ms."""
NEEDS_ODD = frozenset({FaultKind.CORRUPT, FaultKind.OOM, FaultKind.CLOCK})
"""Kinds whose victim must be a `lab.wan.node`."""
NEEDS_SMALL_DISK = frozenset({FaultKind.DISK_FULL})
NEEDS_RESTART = frozenset({FaultKind.DISK_FULL, FaultKind.CORRUPT})
"""Kinds that are over only when the node starts anew."""
NEEDS_NEW_KEY = frozenset({FaultKind.CORRUPT})
"""Kinds after which others will have nothing to do with the node for a minute."""


class WanFaults:
    """Makes faults in a `WanSwarm`. ``async with``: afterwards none is left but the deaths."""

    def __init__(self, swarm: WanSwarm) -> None:
        self._swarm = swarm
        self._tasks = Tasks()
        self._duties: dict[str, asyncio.Task[None]] = {}
        self._made: list[tuple[Fault, Machine]] = []

    async def __aenter__(self) -> WanFaults:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._tasks.__aexit__(None, None, None)
        for fault, machine in self._made:
            await self._end(fault, machine)

    async def make(self, fault: Fault, machine: Machine) -> None:
        """Do it now; for a while if the fault says so."""
        self._made.append((fault, machine))
        await self._begin(fault, machine)
        lasts_s = fault.for_s
        if fault.kind is FaultKind.PARTITION and lasts_s is None:
            lasts_s = PARTITION_S
        if lasts_s is not None:
            self._tasks.start(self._end_later(fault, machine, lasts_s), name=f"end-{fault.kind}")

    async def _begin(self, fault: Fault, machine: Machine) -> None:
        network = self._swarm.network
        match fault.kind:
            case FaultKind.KILL | FaultKind.KILL_AGENT:
                machine.send(signal.SIGKILL, daemon=fault.kind is FaultKind.KILL)
            case FaultKind.KILL_DAEMON:
                machine.serving.clear()  # set again when it has healed
                machine.send(signal.SIGKILL, agent=False)
            case FaultKind.STALL:
                machine.send(signal.SIGSTOP)
            case FaultKind.DROP | FaultKind.PARTITION:
                await network.silence([machine.name])
            case FaultKind.SLOW:
                self._duties[machine.name] = self._tasks.start(_slow_down(machine), name="slow")
            case FaultKind.LOSS:
                await network.lose(machine.name, LOSS)
            case FaultKind.THIN:
                rate = THIN_MBIT * BYTES_PER_MBIT
                thin = Access(up_bytes_per_s=rate, down_bytes_per_s=rate, queue_s=QUEUE_S)
                await network.limit(machine.name, thin)
            case FaultKind.CORRUPT:
                machine.tell(Change(is_corrupt=True))
            case FaultKind.OOM:
                machine.tell(Change(oom_steps=fault.steps))
            case FaultKind.DISK_FULL:
                machine.fill_disk()
            case FaultKind.CLOCK:
                offset_s = machine.duty.clock_offset_s + fault.offset_s
                machine.tell(Change(clock_offset_s=offset_s))

    async def _end(self, fault: Fault, machine: Machine) -> None:
        """Undo it, however often."""
        match fault.kind:
            case FaultKind.STALL:
                machine.send(signal.SIGCONT)
            case FaultKind.DROP | FaultKind.PARTITION | FaultKind.LOSS | FaultKind.THIN:
                await self._swarm.network.heal(machine.name)
            case FaultKind.SLOW:
                if machine.name in self._duties:
                    self._duties.pop(machine.name).cancel()
            case FaultKind.CORRUPT | FaultKind.OOM | FaultKind.CLOCK:
                offset_s = machine.duty.clock_offset_s
                machine.tell(Change(is_corrupt=False, oom_steps=0, clock_offset_s=offset_s))

    async def _end_later(self, fault: Fault, machine: Machine, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await self._end(fault, machine)


async def _slow_down(machine: Machine) -> None:
    """Let its agent run for one part in `SLOW_FACTOR` of the time, until cancelled.

    Timers are late by a millisecond or so; what it ran or stood too long is made up for.
    """
    clock = time.monotonic
    owed_s = 0.0
    try:
        while True:
            began = clock()
            await asyncio.sleep(RUNS_S)
            owed_s += (clock() - began) * (SLOW_FACTOR - 1.0)
            if owed_s <= 0.0:
                continue
            machine.send(signal.SIGSTOP, daemon=False)
            stopped = clock()
            await asyncio.sleep(owed_s)
            machine.send(signal.SIGCONT, daemon=False)
            owed_s -= clock() - stopped
    finally:
        machine.send(signal.SIGCONT, daemon=False)
