"""What processes hold while a soak runs, and what is left of it afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil

from p2pnode.lab.wan.client import WanClient
from p2pnode.lab.wan.processes import Handle
from p2pnode.lab.wan.swarm import WanSwarm
from p2pnode.lab.wan.tally import slope_mb_per_min

SAMPLE_S = 5.0
SPARE_DESCRIPTORS = 24
SPARE_TASKS = 54
"""Links come with the nodes (six tasks each) and go when they are silent: so many more at the end
than at the beginning are no leak. One of each node that dies would be, in an hour."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What everybody held at one quiet moment."""

    tasks: int
    """Of the client."""
    descriptors: dict[int, int]
    """By process id."""


@dataclass(slots=True, eq=False)
class Watch:
    """Looks at the processes of a swarm."""

    swarm: WanSwarm
    clock: Callable[[], float]
    dead: list[Handle] = field(default_factory=list)
    """Daemons of nodes that were killed."""
    _names: dict[int, str] = field(default_factory=dict)
    _samples: dict[int, list[tuple[float, int]]] = field(default_factory=dict)

    async def run(self) -> None:
        """Note everybody's memory, until cancelled."""
        while True:
            for pid, size in (await asyncio.to_thread(self._memory)).items():
                self._samples.setdefault(pid, []).append((self.clock(), size))
            await asyncio.sleep(SAMPLE_S)

    def slopes(self, whole_s: float) -> dict[str, float]:
        """MB per minute of each process that has lived long enough, by what it is."""
        found = {}
        for pid, samples in self._samples.items():
            slope = slope_mb_per_min(samples, whole_s)
            if slope is not None:
                found[self._names.get(pid, f"process {pid}")] = slope
        return found

    async def holdings(self, client: WanClient) -> Holdings:
        """Now; raises LocalError when the client is silent."""
        tasks = (await client.census())["num_tasks"]
        return Holdings(tasks, await asyncio.to_thread(self._descriptors))

    async def leaks(self, client: WanClient, before: Holdings) -> dict[str, int]:
        """How much more there is than before, by the names of `SoakResult`."""
        now = await self.holdings(client)
        more = [
            number - before.descriptors[pid] - SPARE_DESCRIPTORS
            for pid, number in now.descriptors.items()
            if pid in before.descriptors
        ]
        return {
            "leaked_sessions": sum(m.num_sessions for m in self.swarm.machines.values()),
            "leaked_descriptors": sum(max(0, number) for number in more),
            "leaked_tasks": max(0, now.tasks - before.tasks - SPARE_TASKS),
            "leaked_daemons": sum(handle.is_alive for handle in self.dead),
        }

    def _memory(self) -> dict[int, int]:
        for machine in list(self.swarm.machines.values()):
            for what, handle in (("agent", machine.agent), ("daemon", machine.daemon)):
                if handle is not None:
                    self._names[handle.pid] = f"{what} of {machine.name}"
        return {each.pid: int(each.memory_info().rss) for each in self._processes()}

    def _descriptors(self) -> dict[int, int]:
        return {each.pid: int(each.num_fds()) for each in self._processes()}

    def _processes(self) -> Iterator[psutil.Process]:
        for pid in self.swarm.pids():
            try:
                yield psutil.Process(pid)
            except psutil.NoSuchProcess:
                continue
