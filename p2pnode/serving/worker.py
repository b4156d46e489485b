"""The compute thread: runs what the scheduler has merged into one forward.

One thread per device: torch releases the GIL while it computes, order is kept, and nothing forks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from p2pnode.errors import ComputeFailed
from p2pnode.model.block import Work
from p2pnode.model.device import is_out_of_memory, release_memory
from p2pnode.model.tensor import from_torch, to_torch
from p2pnode.serving.endings import Outcome as Outcome
from p2pnode.serving.endings import endings, not_finite
from p2pnode.serving.job import Job, Output
from p2pnode.serving.journal import rows
from p2pnode.serving.scheduler import Scheduler
from p2pnode.serving.tally import Tally
from p2pnode.types import Tensor

OnDone = Callable[[Job, Outcome, float, float], None]
"""Called on the loop with the job, what it made, its queue time and its compute time (seconds)."""


class Worker:
    """Runs blocks on one thread. ``async with`` owns the thread, `run` the loop that feeds it."""

    def __init__(self, measured: Sequence[tuple[int, float]] = ()) -> None:
        """measured: (tokens, seconds) of forwards that have been done before"""
        self.tally = Tally(measured)
        self.scheduler: Scheduler[Job] = Scheduler(self.tally.cost)
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A forward cannot be interrupted; it ends within one step and nobody waits for its output.
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def num_waiting(self) -> int:
        """Jobs that have not begun."""
        return self.scheduler.num_waiting

    async def do(self, work: Callable[[], None]) -> None:
        """Run something short on the thread, between two forwards."""
        await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self.scheduler.put(job)
        self._wake.set()

    async def run(self, on_done: OnDone) -> None:
        """Feed the thread until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            held_s = self.scheduler.hold_until(loop.time()) - loop.time()
            if held_s > 0.0:
                await self._next_or(held_s)
                continue
            batch = self.scheduler.take(loop.time())
            if not batch:
                self._wake.clear()
                if self.num_waiting:  # lazy ones, whose share is used up
                    loop.call_at(self.scheduler.lazy_from, self._wake.set)
                continue
            began = loop.time()
            outcomes = await loop.run_in_executor(self._thread, self._compute, batch)
            compute_s = loop.time() - began
            self._note(batch, began, compute_s)
            for job, outcome in zip(batch, outcomes, strict=True):
                on_done(job, outcome, began - job.submitted_at, compute_s)

    async def _next_or(self, wait_s: float) -> None:
        """Return when another job comes, or that time is over; what waits now still waits."""
        self._wake.clear()
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            self._wake.set()

    def _note(self, batch: list[Job], began: float, compute_s: float) -> None:
        self.tally.forward(sum(job.entry.shape[0] for job in batch), compute_s)
        self.scheduler.note(batch, began, compute_s)
        for job in batch:
            if not job.is_lazy:
                self.tally.waited(began - job.submitted_at)

    def _compute(self, batch: list[Job]) -> list[Outcome]:
        """Runs on the thread: the forward, and for last hops the head and the sampling."""
        try:
            return self._forward(batch)
        except (RuntimeError, MemoryError, ValueError, IndexError, ComputeFailed) as error:
            if len(batch) > 1:  # one session's trouble is not the others'
                return [outcome for job in batch for outcome in self._compute([job])]
            return [_failure(error)]

    def _forward(self, batch: list[Job]) -> list[Outcome]:
        block = batch[0].session.block
        work = [
            Work(
                cache=job.session.cache,
                position=job.position,
                entry=to_torch(_wanted(job), block.device),
            )
            for job in batch
        ]
        outs = block.forward(work)
        if batch[0].session.ends_chain:
            return endings(batch, work, outs)
        return [
            Output(job.position, from_torch(hidden)) if part.is_finite else not_finite(job, part)
            for job, part, hidden in zip(batch, work, outs, strict=True)
        ]


def _wanted(job: Job) -> Tensor:
    """The rows that have not been cut off since; one at least, to have something to compute."""
    return rows(job.entry, 0, max(1, min(job.num_tokens, job.entry.shape[0])))


def _failure(error: Exception) -> ComputeFailed:
    if isinstance(error, ComputeFailed):
        return error
    if is_out_of_memory(error):
        release_memory()
        return ComputeFailed("out of memory in mid-step; the session was dropped", "out-of-memory")
    return ComputeFailed(f"step failed on the device: {str(error)[:200]}")
