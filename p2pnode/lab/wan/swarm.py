"""A swarm of machines: network, programs, nodes and clients, started and started again."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from p2pnode.lab.presets import Link
from p2pnode.lab.wan import namespaces
from p2pnode.lab.wan.client import WanClient
from p2pnode.lab.wan.launcher import Launch
from p2pnode.lab.wan.machines import Duty, Machine
from p2pnode.lab.wan.namespaces import Nat
from p2pnode.lab.wan.network import WanNetwork, access_of
from p2pnode.lab.wan.processes import Program, Programs
from p2pnode.lab.wan.worker import Join
from p2pnode.tasks import Tasks

BOOTSTRAP = "bootstrap"
WARM = (
    "p2pnode.client.client",
    "p2pnode.lab.conditions",
    "p2pnode.node.loading",
    "p2pnode.node.server",
    "p2pnode.swarm.p2p_network",
    "transformers.models.llama.modeling_llama",
)
"""What nodes and clients of the lab's models import."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How a machine is connected."""

    link: Link
    nat: Nat = "none"


class WanSwarm:
    """Machines of one swarm. ``async with`` leaves no process, namespace or file behind.

    Everybody joins through a bootstrap node that nothing ever happens to. Raises NoNamespaces.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.network = WanNetwork(seed=seed)
        self.machines: dict[str, Machine] = {}
        self._seed = seed
        self._tasks = Tasks()
        self._starting = asyncio.Lock()
        self._homes = itertools.count()
        self._stack = AsyncExitStack()
        self._folder: Path
        self._programs: Programs

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            # Short: the path of a daemon's socket has at most 108 bytes.
            _remove_stale_folders()
            prefix = f"{namespaces.PREFIX}-{os.getpid()}-"
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix))
            self._folder = Path(name)
            await stack.enter_async_context(self.network)
            self._programs = await stack.enter_async_context(Programs(self._folder, WARM))
            await stack.enter_async_context(self._tasks)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def place(self, name: str, place: Place) -> None:
        """Connect a machine to the network; its lines are still perfect."""
        await self.network.add(name, access_of(place.link), place.nat)

    async def serve(self, name: str, duty: Duty) -> Machine:
        """Start a node on a machine that has its place, and wait until it is announced."""
        if name != BOOTSTRAP:
            duty = replace(duty, join=(self.machines[BOOTSTRAP].address,))
        home = self._folder / f"h{next(self._homes)}"
        machine = Machine(name, self.network.namespace(name), home, duty)
        self.machines[name] = machine
        await self.revive(machine)
        return machine

    async def revive(self, machine: Machine) -> None:
        """Start its node again if it has ended, with the same key; wait until it serves.

        One node starts at a time: each measures itself.
        """
        async with self._starting:
            if machine.program is None or machine.program.ended.is_set():
                await machine.start(self._programs)
                self._tasks.start(machine.listen(), name=f"listen-{machine.name}")
            await machine.wait_serving()

    async def end(self, machine: Machine) -> None:
        """Have its node leave (SIGTERM), or end it."""
        if machine.program is not None:
            await self._programs.end(machine.program)

    async def remove(self, machine: Machine) -> None:
        """Take a machine away whose node has ended, with its place."""
        del self.machines[machine.name]
        await self.network.remove(machine.name)

    async def client(self, name: str, join: Join) -> WanClient:
        """Start a client on a machine that has its place; its ``home`` and ``join`` are ours."""
        launch = Launch(
            module="p2pnode.lab.wan.worker",
            arguments=(),
            namespace=self.network.namespace(name).name,
        )
        program = await self._programs.start(name, launch)
        client = WanClient(program)
        home = str(self._folder / f"h{next(self._homes)}")
        await client.join(replace(join, home=home, join=(self.machines[BOOTSTRAP].address,)))
        self._tasks.start(client.listen(), name=f"listen-{name}")
        return client

    async def run(self, name: str, launch: Launch) -> Program:
        """Start some other program; its log is called ``name``."""
        return await self._programs.start(name, launch)

    async def close_client(self, client: WanClient) -> None:
        """End its process."""
        await self._programs.end(client.program)

    def pids(self) -> list[int]:
        """The process ids of all nodes, clients and daemons that run."""
        return self._programs.pids()


def _remove_stale_folders() -> None:
    """Remove what labs have left that were killed; the name says whose it was."""
    for folder in Path(tempfile.gettempdir()).glob(f"{namespaces.PREFIX}-*-*"):
        maker = folder.name.split("-")[1]
        if maker.isdecimal() and not Path(f"/proc/{maker}").exists():
            shutil.rmtree(folder, ignore_errors=True)
