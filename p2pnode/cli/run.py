"""The event loop of every command: uvloop, and two signals that end the command."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import uvloop

from p2pnode.cli.exits import INTERRUPTED, WELL, Interrupted
from p2pnode.errors import P2PNodeError

T = TypeVar("T")


class Signals:
    """What SIGINT and SIGTERM do: the first one cancels the command, the next ends the process.

    A command that leaves by itself when it is asked to is cancelled by the second one.
    """

    def __init__(
        self, *, on_stop: Callable[[], bool] = lambda: False, is_end_normal: bool = False
    ) -> None:
        """on_stop: called first; whether the command will end by itself.

        is_end_normal: SIGTERM is exit status 0.
        """
        self.received: signal.Signals | None = None
        self._on_stop = on_stop
        self._is_end_normal = is_end_normal
        self._command: asyncio.Task[Any] | None = None
        self._part: asyncio.Task[Any] | None = None

    @property
    def status(self) -> int:
        """The exit status of a command that was cancelled."""
        return WELL if self._is_end_normal and self.received is signal.SIGTERM else INTERRUPTED

    @contextmanager
    def only_cancel(self, part: asyncio.Task[Any]) -> Iterator[None]:
        """Meanwhile SIGINT cancels that task of the command, and the command goes on."""
        self._part = part
        try:
            yield
        finally:
            self._part = None

    def watch(self, command: asyncio.Task[Any]) -> None:
        """From now on a signal cancels this task."""
        self._command = command
        # Also where a shell has started us in the background with SIGINT ignored.
        for number in (signal.SIGINT, signal.SIGTERM):
            command.get_loop().add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._command is None:
            return
        if number is signal.SIGINT and self._part is not None:
            self._part.cancel()
            return
        is_first, self.received = self.received is None, number
        if is_first and self._on_stop():
            return
        for each in (signal.SIGINT, signal.SIGTERM):
            self._command.get_loop().remove_signal_handler(each)
        self._command.cancel()


def run_async(command: Coroutine[Any, Any, T], signals: Signals | None = None) -> T:
    """Run a command to its end; raises Interrupted when a signal has cancelled it.

    Of errors that several tasks raised at once, the one that matters is raised alone.
    """
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        result = runner.run(_until_signal(command, signals or Signals()))
    except Interrupted:
        # Unlike `Runner.close` this does not wait for threads that load or download.
        runner.get_loop().close()
        raise
    except BaseException:
        runner.close()
        raise
    runner.close()
    return result


async def _until_signal(command: Coroutine[Any, Any, T], signals: Signals) -> T:
    task = asyncio.current_task()
    if task is not None:
        signals.watch(task)
    try:
        result = await command
    except asyncio.CancelledError:
        if signals.received is None:
            raise
        raise Interrupted(signals.status) from None
    except BaseExceptionGroup as group:
        raise _cause(group) from group
    if signals.received is not None:
        raise Interrupted(signals.status)
    return result


def _cause(group: BaseExceptionGroup[Any]) -> BaseException:
    """A bug before the errors that we know, the first of its kind."""
    ours, others = group.split(P2PNodeError)
    error: Any = others or ours
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error  # type: ignore[no-any-return]
