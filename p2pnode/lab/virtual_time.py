"""An event loop whose clock jumps: an hour of timeouts passes in milliseconds, in exact order.

Rules of the clock:
- when callbacks are ready it stands still and they run;
- when nothing is ready it jumps to the next timer;
- while a job runs in an executor it stands still: computing takes no virtual time, unless the job
  says so (`VirtualTimeLoop.spend`): then its result comes so much later;
- when nothing is ready, scheduled or computing, nobody can ever wake up: `Deadlock`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import selectors
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Deadlock(RuntimeError):
    """Every task waits for something that cannot happen; the text lists them."""


class _JumpingSelector(selectors.DefaultSelector):
    """Where the loop would sleep, its clock jumps instead."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As `selectors.BaseSelector.select`, without waiting for timers."""
        events = super().select(0)
        if events or timeout == 0:
            return events
        if self.loop.is_waiting_for_threads(timeout):
            return super().select(None)
        if timeout is None:
            raise Deadlock(_describe(self.loop))
        self.loop.advance(timeout)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop on virtual time, which starts at 0."""

    def __init__(self) -> None:
        selector = _JumpingSelector()
        selector.loop = self
        self._now = 0.0
        self._thread = threading.get_ident()
        self._num_jobs = 0
        self._spent: dict[int, float] = {}
        self._is_shutting_down = False
        super().__init__(selector)
        self._threads = concurrent.futures.ThreadPoolExecutor(thread_name_prefix="virtual")

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let virtual time pass; the selector calls it."""
        self._now += seconds

    def is_waiting_for_threads(self, timeout: float | None) -> bool:
        """Whether a wake-up from another thread is due before the clock may go on."""
        return self._num_jobs > 0 or (self._is_shutting_down and timeout is None)

    def run_in_executor(
        self,
        executor: concurrent.futures.Executor | None,
        func: Callable[[Unpack[Ts]], T],
        *args: *Ts,
    ) -> asyncio.Future[T]:
        """As in asyncio; the clock stands still until the job ends, also if nobody waits for it.

        What the job has spent passes before its result is there.
        """
        job = (executor or self._threads).submit(self._measured, functools.partial(func, *args))
        future: asyncio.Future[T] = self.create_future()
        self._num_jobs += 1
        job.add_done_callback(lambda job: self.call_soon_threadsafe(self._end_job, job, future))
        future.add_done_callback(lambda future: future.cancelled() and job.cancel())
        return future

    def spend(self, seconds: float) -> None:
        """Called within a job: so much virtual time does it take, on top of what it said before."""
        thread = threading.get_ident()
        self._spent[thread] = self._spent.get(thread, 0.0) + seconds

    def _measured(self, func: Callable[[], T]) -> tuple[T, float]:
        """Runs on a thread: the job, and what it has spent."""
        thread = threading.get_ident()
        try:
            result = func()
        except BaseException:
            self._spent.pop(thread, None)
            raise
        return result, self._spent.pop(thread, 0.0)

    def _end_job(
        self, job: concurrent.futures.Future[tuple[T, float]], future: asyncio.Future[T]
    ) -> None:
        self._num_jobs -= 1
        if future.done():
            return
        if job.cancelled():
            future.cancel()
        elif (error := job.exception()) is not None:
            future.set_exception(error)
        else:
            result, spent_s = job.result()
            if spent_s:
                self.call_later(spent_s, _hand_over, future, result)
            else:
                future.set_result(result)

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """As in asyncio; from another thread it is an error, as in debug mode."""
        if threading.get_ident() != self._thread:
            raise RuntimeError("call_soon from another thread: use call_soon_threadsafe")
        return super().call_soon(callback, *args, context=context)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """End the threads that `run_in_executor(None, ...)` made."""
        self._is_shutting_down = True
        self._threads.shutdown(wait=True)


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a fresh `VirtualTimeLoop`; raises what it raises, or `Deadlock`.

    Not in debug mode, in which asyncio spends more than everything else does on noting where each
    callback came from; PYTHONASYNCIODEBUG=1 asks for it.
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def _hand_over(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _describe(loop: asyncio.AbstractEventLoop) -> str:
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    lines = [f"at {loop.time():g} s nothing is scheduled and {len(tasks)} tasks wait for ever:"]
    for task in tasks:
        frames = task.get_stack(limit=1)
        where = f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else "?"
        lines.append(f"  {task.get_name()} at {where}")
    return "\n".join(lines)
