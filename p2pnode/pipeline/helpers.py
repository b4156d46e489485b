"""What runs beside a session's main loop, within one epoch: keeping standbys, and guessing."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from p2pnode.tasks import Tasks


class Helpers:
    """The tasks of one session; `stop` before the chain changes."""

    def __init__(self, tasks: Tasks) -> None:
        """tasks: owns them"""
        self._owner = tasks
        self._running: list[asyncio.Task[None]] = []

    @property
    def are_running(self) -> bool:
        """Whether they were started in this epoch."""
        return bool(self._running)

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run something until `stop`."""
        self._running.append(self._owner.start(work, name=name))

    async def stop(self) -> None:
        """Cancel them, and wait for their end."""
        running, self._running = self._running, []
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
