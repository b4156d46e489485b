"""Signals: the first one cancels the command, which still gets to clean up."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from p2pnode.cli.exits import INTERRUPTED, WELL, Interrupted
from p2pnode.cli.run import Signals, run_async
from p2pnode.errors import BadRequest


async def interrupted_by(number: signal.Signals, course: list[str]) -> None:
    """Get a signal, and clean up with an await."""
    os.kill(os.getpid(), number)
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        course.append("cleaned up")


@pytest.mark.parametrize(
    ("number", "is_end_normal", "status"),
    [
        (signal.SIGINT, False, INTERRUPTED),
        (signal.SIGINT, True, INTERRUPTED),
        (signal.SIGTERM, False, INTERRUPTED),
        (signal.SIGTERM, True, WELL),
    ],
)
def test_a_signal_cancels_the_command_once(
    number: signal.Signals, is_end_normal: bool, status: int
) -> None:
    course: list[str] = []

    def on_stop() -> bool:
        course.append("stopping")
        return False

    signals = Signals(on_stop=on_stop, is_end_normal=is_end_normal)
    with pytest.raises(Interrupted) as caught:
        run_async(interrupted_by(number, course), signals)
    assert caught.value.status == status
    assert course == ["stopping", "cleaned up"]


def test_a_command_that_leaves_by_itself_is_not_cancelled_by_the_first_signal() -> None:
    course: list[str] = []
    leaving = asyncio.Event()

    def on_stop() -> bool:
        leaving.set()
        return True

    async def command() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await leaving.wait()
        course.append("left")

    with pytest.raises(Interrupted) as caught:
        run_async(command(), Signals(on_stop=on_stop, is_end_normal=True))
    assert caught.value.status == WELL
    assert course == ["left"]


def test_the_second_signal_cancels_a_command_that_takes_too_long_to_leave() -> None:
    async def command() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    with pytest.raises(Interrupted) as caught:
        run_async(command(), Signals(on_stop=lambda: True, is_end_normal=True))
    assert caught.value.status == INTERRUPTED


def test_a_command_without_a_signal_returns_its_result() -> None:
    async def command() -> int:
        return 7

    assert run_async(command()) == 7


def test_the_error_that_matters_leaves_a_task_group_alone() -> None:
    async def fail() -> None:
        raise BadRequest("no")

    async def command() -> None:
        async with asyncio.TaskGroup() as outer, asyncio.TaskGroup() as inner:
            inner.create_task(fail())
            outer.create_task(asyncio.sleep(60))

    with pytest.raises(BadRequest):
        run_async(command())


def test_ctrl_c_may_cancel_a_part_and_the_command_goes_on() -> None:
    async def command() -> str:
        async with asyncio.TaskGroup() as tasks:
            part = tasks.create_task(asyncio.sleep(60))
            with signals.only_cancel(part):
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.wait([part])
        return "part cancelled" if part.cancelled() else "part ended"

    signals = Signals()
    assert run_async(command(), signals) == "part cancelled"


def test_an_interrupted_command_does_not_wait_for_its_threads() -> None:
    is_released = threading.Event()

    async def command() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.get_running_loop().run_in_executor(None, is_released.wait, 60)

    try:
        with pytest.raises(Interrupted):
            run_async(command())
    finally:
        is_released.set()
