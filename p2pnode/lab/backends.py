"""Where scenarios run: in network namespaces with real processes, or in memory on virtual time."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from p2pnode.errors import BadRequest
from p2pnode.lab.memory_runner import run_in_memory
from p2pnode.lab.result import Trial
from p2pnode.lab.scenario import Scenario
from p2pnode.lab.sweep import Backend

CHOICES = ("auto", "namespaces", "memory")


@dataclass(frozen=True, slots=True)
class Chosen:
    """A lab, and why it is this one."""

    transport: str
    """``namespaces`` or ``memory``."""
    reason: str
    """One line for whoever did not choose."""
    lab: AbstractAsyncContextManager[Backend]
    """Opens it; leaves nothing behind."""


def choose_lab(wanted: str, cache: Path, commit: str) -> Chosen:
    """Namespaces where this machine allows them, else memory; or the one that is wanted.

    Raises BadRequest for another word, NoNamespaces when they are wanted and not allowed.
    """
    if wanted not in CHOICES:
        raise BadRequest(f"{wanted[:40]!r} is no transport; write one of {', '.join(CHOICES)}")
    memory = _memory(cache, commit)
    if wanted == "memory":
        return Chosen("memory", "in memory, on virtual time", memory)
    from p2pnode.lab.wan.namespaces import NoNamespaces, check_rights  # Linux only

    try:
        check_rights()
    except NoNamespaces as error:
        if wanted == "namespaces":
            raise
        return Chosen("memory", f"in memory, on virtual time, because {error}", memory)
    namespaces = _namespaces(cache, commit)
    return Chosen("namespaces", "real processes in network namespaces", namespaces)


@asynccontextmanager
async def _memory(cache: Path, commit: str) -> AsyncIterator[Backend]:
    async def backend(scenario: Scenario) -> Trial:
        # Virtual time is a loop of its own, so it needs a thread of its own.
        loop, run = asyncio.get_running_loop(), functools.partial(run_in_memory, commit=commit)
        running = loop.run_in_executor(None, run, scenario, cache)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])  # so that it cleans up behind itself
            raise

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of a small model more would wait for each other
    try:
        yield backend
    finally:
        torch.set_num_threads(num_threads)


@asynccontextmanager
async def _namespaces(cache: Path, commit: str) -> AsyncIterator[Backend]:
    from p2pnode.lab.wan.runner import WanLab  # Linux only

    async with WanLab(cache, commit=commit) as lab:
        yield lab.run
