"""The lab's side of a client's process: requests out, events in, each to its request."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from p2pnode.errors import LocalError
from p2pnode.lab.wan.processes import Program
from p2pnode.lab.wan.worker import Cancel, Census, Generate, Join

JOINED_WITHIN_S = 60.0
CENSUS_WITHIN_S = 5.0
LAST = ("done", "failed")
"""Events that end a generation."""

Events = AsyncGenerator[dict[str, Any], None]


class WanClient:
    """One `p2pnode.Client` in a process of its own (`lab.wan.worker`)."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._ids = itertools.count()
        self._queues: dict[int, asyncio.Queue[dict[str, Any]]] = {}
        self._census: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def join(self, join: Join) -> None:
        """Enter the swarm; raises LocalError with the reason when it cannot."""
        self.program.tell(join)
        try:
            async with asyncio.timeout(JOINED_WITHIN_S):
                async for event in self.program.heard():
                    if event["event"] == "joined":
                        return
                    if event["event"] == "failed":
                        raise LocalError(f"the client cannot join: {event['message']}")
        except TimeoutError:
            raise LocalError(f"the client has not joined in {JOINED_WITHIN_S:g} s") from None
        raise LocalError(f"the client has ended: {self.program.last_words()}")

    async def listen(self) -> None:
        """Hand events to whom they are for, until the process ends."""
        async for event in self.program.heard():
            if event["event"] == "census":
                self._census.put_nowait(event)
                continue
            # What the client logs belongs to no request; every one hears it.
            to = [event["id"]] if "id" in event else list(self._queues)
            for each in to:
                if each in self._queues:
                    self._queues[each].put_nowait(event)
        for queue in self._queues.values():
            ended = {"event": "failed", "kind": "ClientEnded", "message": "the client has ended"}
            queue.put_nowait(ended)

    async def generate(self, request: Generate) -> Events:
        """Events of one generation, up to ``done`` or ``failed``; its id is given here.

        Leaving before the end cancels it.
        """
        number = next(self._ids)
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._queues[number] = queue
        is_over = False
        try:
            self.program.tell(replace(request, id=number))
            while not is_over:
                event = await queue.get()
                is_over = event["event"] in LAST
                yield event
        finally:
            del self._queues[number]
            if not is_over and not self.program.ended.is_set():
                self.program.tell(Cancel(id=number))

    async def census(self) -> dict[str, int]:
        """Tasks, threads and descriptors of the process; raises LocalError when it is silent."""
        self.program.tell(Census())
        try:
            async with asyncio.timeout(CENSUS_WITHIN_S):
                return await self._census.get()
        except TimeoutError:
            raise LocalError("the client does not say what it holds") from None
