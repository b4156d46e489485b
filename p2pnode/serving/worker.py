"""The compute thread: whatever steps wait are merged into one forward, in order of arrival.

Lazy jobs, which keep standbys up to date, run when no other job waits, and at most a share of the
time: a volunteer's standby must not cost its own chains.

One thread per device: torch releases the GIL while it computes, order is kept, and nothing forks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from p2pnode.errors import ComputeFailed
from p2pnode.model.block import Work
from p2pnode.model.device import is_out_of_memory, release_memory
from p2pnode.model.sampler import sample
from p2pnode.model.tensor import TorchTensor, from_torch, is_finite, to_torch
from p2pnode.serving.session import Job, Output
from p2pnode.serving.tally import Tally

MAX_FORWARD_TOKENS = 512
"""A forward takes at least one job, and further ones while they fit in here."""

LAZY_SHARE = 0.25
"""The most of the time that lazy jobs may take."""

Outcome = Output | ComputeFailed
OnDone = Callable[[Job, Outcome, float, float], None]
"""Called on the loop with the job, what it made, its queue time and its compute time (seconds)."""


class Worker:
    """Runs blocks on one thread. ``async with`` owns the thread, `run` the loop that feeds it."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._waiting: deque[Job] = deque()
        self._lazy_from = 0.0
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
        return len(self._waiting)

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._waiting.append(job)
        self._wake.set()

    async def run(self, on_done: OnDone) -> None:
        """Feed the thread until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            batch = self._take(loop.time())
            if not batch:
                self._wake.clear()
                if self._waiting:  # lazy ones, whose share is used up
                    loop.call_at(self._lazy_from, self._wake.set)
                continue
            began = loop.time()
            outcomes = await loop.run_in_executor(self._thread, self._compute, batch)
            compute_s = loop.time() - began
            self._note(batch, began, compute_s)
            for job, outcome in zip(batch, outcomes, strict=True):
                on_done(job, outcome, began - job.submitted_at, compute_s)

    def _note(self, batch: list[Job], began: float, compute_s: float) -> None:
        self.tally.forward(sum(job.entry.shape[0] for job in batch), compute_s)
        if batch[0].is_lazy:
            self._lazy_from = began + compute_s / LAZY_SHARE
            return
        for job in batch:
            self.tally.waited(began - job.submitted_at)

    def _take(self, now: float) -> list[Job]:
        """The next forward: in order of arrival, one job per session, void ones left out."""
        waiting = [job for job in self._waiting if not job.is_void]
        is_lazy = all(job.is_lazy for job in waiting)
        batch: list[Job] = []
        later: deque[Job] = deque()
        busy: set[int] = set()
        tokens = 0
        for job in waiting:
            may_run = job.is_lazy == is_lazy and not (is_lazy and now < self._lazy_from)
            if may_run and self._fits(job, batch, tokens) and id(job.session) not in busy:
                batch.append(job)
                tokens += job.entry.shape[0]
            else:
                later.append(job)
            # A session's steps stay in order: once one waits, so do those behind it.
            busy.add(id(job.session))
        self._waiting = later
        return batch

    @staticmethod
    def _fits(job: Job, batch: list[Job], tokens: int) -> bool:
        """Whether a job may join: the same layers, and not too much at once."""
        if not batch:
            return True
        same_layers = job.session.block is batch[0].session.block
        return same_layers and tokens + job.entry.shape[0] <= MAX_FORWARD_TOKENS

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
                entry=to_torch(job.entry, block.device),
            )
            for job in batch
        ]
        outcomes: list[Outcome] = []
        for job, part, hidden in zip(batch, work, block.forward(work), strict=True):
            if not is_finite(hidden):
                whose = "input" if not is_finite(part.entry) else "output"
                what = f"{whose} of layers {block.layers} is not finite"
                outcomes.append(ComputeFailed(what, whose))
            elif not job.session.ends_chain:
                outcomes.append(Output(job.position, from_torch(hidden)))
            else:
                outcomes.append(_finish(job, hidden[job.send_from - job.position :]))
        return outcomes


def _failure(error: Exception) -> ComputeFailed:
    if isinstance(error, ComputeFailed):
        return error
    if is_out_of_memory(error):
        release_memory()
        return ComputeFailed("out of memory in mid-step; the session was dropped", "out-of-memory")
    return ComputeFailed(f"step failed on the device: {str(error)[:200]}")


def _finish(job: Job, hidden: TorchTensor) -> Output:
    """The last hop's output from [tokens, hidden_size]: only what the client waits for."""
    session, start = job.session, job.send_from
    if not len(hidden):
        return Output(start)
    if session.sampling is None:
        return Output(start, from_torch(hidden))
    made = []
    for index, row in enumerate(session.block.logits(hidden)):
        position = start + index + 1
        known = session.token_ids[:position]
        token_id = sample(row, session.sampling, position=position, token_ids=known)
        if session.sampling.needs_tokens:
            session.token_ids[position:] = [token_id]
        made.append(token_id)
    return Output(start, token_ids=tuple(made))
