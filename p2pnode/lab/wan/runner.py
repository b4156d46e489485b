"""Runs scenarios on real processes in namespaces, in real time.

`WanLab` keeps its swarm between scenarios that have the same nodes and links: a node that died is
started again, with the same key, while the next scenario runs, if that one can do without it. So
192 kills take minutes. What differs from the memory lab is said in `lab.faults`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from p2pnode.lab.reference import Task, prepare
from p2pnode.lab.result import Trial
from p2pnode.lab.scenario import CLIENT, Scenario
from p2pnode.lab.wan.course import Course
from p2pnode.lab.wan.faults import (
    NEEDS_NEW_KEY,
    NEEDS_ODD,
    NEEDS_RESTART,
    NEEDS_SMALL_DISK,
    WanFaults,
)
from p2pnode.lab.wan.machines import Duty, Machine
from p2pnode.lab.wan.network import line_of
from p2pnode.lab.wan.swarm import BOOTSTRAP, Place, WanSwarm
from p2pnode.lab.wan.worker import Generate, Join
from p2pnode.tasks import Tasks
from p2pnode.types import LayerRange

HANGS_AFTER_S = 120.0
"""Longer than every patience of a client together."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a swarm is made from; scenarios that agree in it share one."""

    scenario: Scenario
    """Without what can change between trials."""
    is_odd: bool
    has_small_disk: bool

    @classmethod
    def of(cls, scenario: Scenario) -> Self:
        """The part of a scenario that a swarm is made from."""
        kinds = {fault.kind for fault in scenario.faults}
        request = replace(scenario.client, prompt=None, prompt_tokens=None, max_tokens=1)
        request = replace(request, temperature=0.0, seed=0)
        fair = replace(scenario, name="", faults=(), client=request, seed=0)
        return cls(fair, bool(kinds & NEEDS_ODD), bool(kinds & NEEDS_SMALL_DISK))


class WanLab:
    """Runs scenarios, one at a time. ``async with`` leaves nothing behind; NoNamespaces."""

    def __init__(self, cache: Path, *, commit: str = "unknown") -> None:
        """cache: where made models and sums are kept; commit: of the code, for the results."""
        self._cache = cache
        self._commit = commit
        self._setting: Setting | None = None
        self._swarm: WanSwarm | None = None
        self._reviving: dict[str, asyncio.Task[None]] = {}
        self._tasks = Tasks()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            await self._dissolve()

    async def run(self, scenario: Scenario) -> Trial:
        """One generation and its faults. BadRequest for a scenario that cannot be; LocalError."""
        task = await asyncio.to_thread(prepare, scenario, self._cache)
        swarm = await self._prepared(scenario, task)
        course = Course(scenario, task, machines=swarm.machines)
        join = Join(join=(), home="", model=_model(scenario, task), standby=scenario.standby)
        client = await swarm.client(CLIENT, join)
        async with WanFaults(swarm) as faults:
            try:
                async with asyncio.timeout(HANGS_AFTER_S), Tasks() as tasks:
                    await course.follow(client, request_of(task), faults, tasks)
            except TimeoutError:
                course.is_hung = True
        # What it remembers of this trial must not trouble the next one.
        await swarm.close_client(client)
        await self._mend(swarm, course)
        return course.trial("namespaces", self._commit)

    # --- the swarm

    async def _prepared(self, scenario: Scenario, task: Task) -> WanSwarm:
        """A swarm as the scenario says, in which nobody is missing whom it needs."""
        setting = Setting.of(scenario)
        if self._swarm is None or setting != self._setting:
            await self._dissolve()
            self._swarm, self._setting = await self._build(setting, task), setting
        await self._wait_for_needed(scenario)
        return self._swarm

    async def _build(self, setting: Setting, task: Task) -> WanSwarm:
        scenario = setting.scenario
        swarm = WanSwarm(seed=scenario.seed)
        await swarm.__aenter__()
        self._swarm = swarm  # from here on `_dissolve` ends it
        await swarm.place(BOOTSTRAP, Place(link=scenario.link))
        for name, node in scenario.members.items():
            await swarm.place(name, Place(link=scenario.link_of(name), nat=node.nat.value))
        await swarm.place(CLIENT, Place(link=scenario.link_of(CLIENT)))
        names = [*scenario.members, CLIENT]
        pairs = [(a, b) for a in names for b in names if a != b]
        lines = {pair: line_of(scenario.way(*pair)) for pair in pairs}
        for name in names:
            line = line_of(scenario.way(name, name))
            lines |= {(BOOTSTRAP, name): line, (name, BOOTSTRAP): line}
        await swarm.network.set_lines(lines)
        await swarm.serve(BOOTSTRAP, Duty(layers=None))
        for name, node in scenario.members.items():
            duty = Duty(
                layers=node.layers,
                model=_model(scenario, task),
                is_odd=setting.is_odd,
                compute_s=node.compute_ms / 1e3,
                clock_offset_s=node.clock_offset_s,
                has_small_disk=setting.has_small_disk,
            )
            await swarm.serve(name, duty)
        return swarm

    async def _dissolve(self) -> None:
        swarm, self._swarm = self._swarm, None
        for task in self._reviving.values():
            task.cancel()
        if self._reviving:
            await asyncio.wait(self._reviving.values())
        self._reviving.clear()
        if swarm is not None:
            await swarm.__aexit__(None, None, None)

    # --- the dead

    async def _mend(self, swarm: WanSwarm, course: Course) -> None:
        """Have those start again that have died, or cannot go on as they are."""
        for (fault, _, _), machine in zip(course.faults, course.victims, strict=True):
            if fault.kind in NEEDS_RESTART:
                await swarm.end(machine)
                if fault.kind in NEEDS_NEW_KEY:
                    machine.forget_key()
        for name, machine in swarm.machines.items():
            if not machine.is_ready and name not in self._reviving:
                task = self._tasks.start(self._revive(swarm, machine), name=f"revive-{name}")
                self._reviving[name] = task

    async def _revive(self, swarm: WanSwarm, machine: Machine) -> None:
        try:
            await swarm.revive(machine)
        finally:
            self._reviving.pop(machine.name, None)

    async def _wait_for_needed(self, scenario: Scenario) -> None:
        """Return when whoever may be the victim is there, and another for each of its layers."""
        while self._reviving and not self._can_do_without(scenario):
            await asyncio.wait(self._reviving.values(), return_when=asyncio.FIRST_COMPLETED)

    def _can_do_without(self, scenario: Scenario) -> bool:
        """Whether nobody that is missing is needed; only where each hop is one of the ranges."""
        members = scenario.members.items()
        there = [node.layers for name, node in members if name not in self._reviving]
        ranges = sorted({node.layers for node in scenario.nodes})
        hops = {fault.hop for fault in scenario.faults}
        if not hops.issubset(range(len(ranges))):
            return False
        return all(
            _count(layers, there) >= (2 if index in hops else 1)
            for index, layers in enumerate(ranges)
        )


def _model(scenario: Scenario, task: Task) -> str | None:
    """What nodes and clients are told; the built-in model needs no name."""
    return None if scenario.model == "builtin" else str(task.folder)


def request_of(task: Task) -> Generate:
    """A task as the client process takes it."""
    sampling = task.sampling
    return Generate(
        id=0,
        prompt_ids=task.prompt_ids,
        max_tokens=task.max_tokens,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        seed=sampling.seed,
    )


def _count(layers: LayerRange, there: list[LayerRange]) -> int:
    return sum(each.covers(layers) for each in there)
