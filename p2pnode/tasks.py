"""Tasks with an owner: an ``async with`` block that ends its tasks and raises plain errors."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from p2pnode.errors import P2PNodeError

T = TypeVar("T")


class Tasks:
    """A task group for the background tasks of a resource.

    Differs from `asyncio.TaskGroup`: leaving the block cancels what still runs, and waits for it;
    and errors are raised as they are, not in groups. A task that fails cancels the others and the
    block. Of several errors the one that is not of p2pnode's own types, a bug, goes first.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._running: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        for task in self._running:
            task.cancel()
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            leaves = [leaf for leaf in _leaves(group) if leaf is not error]
            if leaves:
                raise min(leaves, key=lambda leaf: isinstance(leaf, P2PNodeError)) from error
        return False

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run something until it ends or the block is left."""
        task = self._group.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def wait(self) -> None:
        """Return when all tasks have ended; a failing one ends the wait by cancelling it."""
        while self._running:
            await asyncio.wait(self._running)


async def all_of(*work: Coroutine[Any, Any, None]) -> None:
    """Run several things at once; the first error cancels the others and is raised as it is."""
    async with Tasks() as tasks:
        for index, each in enumerate(work):
            tasks.start(each, name=f"part-{index}")
        await tasks.wait()


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
