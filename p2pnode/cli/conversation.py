"""A conversation on the command line: what `chat` runs and shows."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from p2pnode.cli.answer import Answer
from p2pnode.cli.output import Output
from p2pnode.cli.run import Signals, run_async
from p2pnode.client.client import Client
from p2pnode.errors import BadRequest

ASK = "> "


def talk(client: Client, history: list[dict[str, str]], options: dict[str, Any]) -> None:
    """Read and answer lines until the end of input; ``history`` grows."""
    signals = Signals()
    with _terminal_kept():
        run_async(_talk(client, history, options, signals), signals)


async def _talk(
    client: Client, history: list[dict[str, str]], options: dict[str, Any], signals: Signals
) -> None:
    output = Output()
    async with client:
        if not client.model.codec.has_chat_template:
            name = client.model.spec.name
            raise BadRequest(f"{name} has no chat template; use: p2pnode generate PROMPT")
        output.note("Ctrl-C cuts an answer short, Ctrl-D leaves.")
        while (line := await _ask()) is not None:
            if line.strip():
                history.append({"role": "user", "content": line})
                text = await _answer(client, history, options, signals)
                history.append({"role": "assistant", "content": text})


async def _answer(
    client: Client, history: list[dict[str, str]], options: dict[str, Any], signals: Signals
) -> str:
    """Stream one answer; Ctrl-C ends it, and what there is of it stays in the conversation."""
    answer = Answer(Output())
    async with asyncio.TaskGroup() as tasks:
        answering = tasks.create_task(answer.stream(client, history, options), name="answer")
        with signals.only_cancel(answering):
            await asyncio.wait([answering])
    return "".join(answer.pieces)


async def _ask() -> str | None:
    """The next line; None at the end of input."""
    return await asyncio.get_running_loop().run_in_executor(None, _read_line)


def _read_line() -> str | None:
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.removesuffix("\n") if line else None
    import readline  # noqa: F401 - gives input() its editing and history

    try:
        return input(ASK)
    except EOFError:
        return None


@contextmanager
def _terminal_kept() -> Iterator[None]:
    """Ctrl-C leaves a thread in the middle of reading a line: the terminal is set back for it."""
    if not sys.stdin.isatty():
        yield
        return
    import termios

    settings = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, settings)
