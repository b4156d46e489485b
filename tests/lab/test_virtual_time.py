"""The virtual clock: jumps over waiting, stands still for computing, never hangs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time

import pytest

from p2pnode.lab.virtual_time import Deadlock, VirtualTimeLoop, run_virtual


def test_an_hour_passes_at_once() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    assert run_virtual(main()) == pytest.approx(3600)
    assert time.monotonic() - began < 2


def test_timers_fire_in_order_and_at_their_time() -> None:
    async def main() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[str, float]] = []

        async def note(name: str, delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            seen.append((name, loop.time()))

        async with asyncio.TaskGroup() as tasks:
            for name, delay_s in (("late", 86_400.0), ("soon", 0.1), ("then", 0.3)):
                tasks.create_task(note(name, delay_s), name=name)
        return seen

    seen = run_virtual(main())
    assert [name for name, _ in seen] == ["soon", "then", "late"]
    assert [at for _, at in seen] == pytest.approx([0.1, 0.3, 86_400.0])


def test_time_stands_still_while_a_job_computes() -> None:
    async def main() -> tuple[str, float]:
        loop = asyncio.get_running_loop()
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            async with asyncio.timeout(0.001):
                result = await loop.run_in_executor(thread, _compute, 0.05)
        return result, loop.time()

    assert run_virtual(main()) == ("done", 0.0)


def test_time_stands_still_for_a_job_that_nobody_waits_for() -> None:
    async def main() -> bool:
        loop = asyncio.get_running_loop()
        ended = threading.Event()

        def job() -> None:
            _compute(0.05)
            ended.set()

        loop.run_in_executor(None, job).cancel()
        job_runs = loop.run_in_executor(None, job)
        await asyncio.sleep(10)
        assert job_runs.done()
        return ended.is_set()

    assert run_virtual(main())


def test_what_a_job_spends_passes_before_its_result_is_there() -> None:
    async def main() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[str, float]] = []

        def job(seconds: float) -> str:
            assert isinstance(loop, VirtualTimeLoop)
            loop.spend(seconds)
            loop.spend(seconds)
            return f"spent twice {seconds:g}"

        async def compute(seconds: float) -> None:
            seen.append((await loop.run_in_executor(None, job, seconds), loop.time()))

        async def look_on() -> None:
            await asyncio.sleep(3)
            seen.append(("looked on", loop.time()))

        async with asyncio.TaskGroup() as tasks:
            for work in (compute(2), look_on(), compute(1)):
                tasks.create_task(work)
        return seen

    assert run_virtual(main()) == [("spent twice 1", 2), ("looked on", 3), ("spent twice 2", 4)]


def test_a_job_that_fails_or_is_given_up_has_spent_nothing() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)

        def job() -> None:
            loop.spend(5)
            raise ValueError

        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            with pytest.raises(ValueError):
                await loop.run_in_executor(thread, job)
            assert loop.time() == 0
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await loop.run_in_executor(thread, loop.spend, 5)
            await loop.run_in_executor(thread, int)
        return loop.time()

    assert run_virtual(main()) == 1


def test_an_error_in_a_job_reaches_the_one_who_waits() -> None:
    async def main() -> None:
        await asyncio.to_thread(int, "not a number")

    with pytest.raises(ValueError, match="not a number"):
        run_virtual(main())


def test_waiting_for_what_cannot_happen_is_an_error_that_names_the_task() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.Event().wait(), name="the-forgotten-one")

    with pytest.raises(Deadlock, match="the-forgotten-one"):
        run_virtual(main())


def _compute(seconds: float) -> str:
    """A job that takes real time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return "done"


def test_another_thread_cannot_touch_what_is_the_loops() -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: None)
        with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
            await asyncio.to_thread(future.set_result, None)

    run_virtual(main())
