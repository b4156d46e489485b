"""``p2pnode chat``: a conversation, through the model's chat template."""

from __future__ import annotations

import asyncio
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from p2pnode.cli.generate import (
    Answer,
    Head,
    MaxTokens,
    RepetitionPenalty,
    Seed,
    Temperature,
    TopP,
    sampling_of,
)
from p2pnode.cli.options import Home, Join, Model, client_swarm
from p2pnode.cli.output import Output
from p2pnode.cli.run import Signals, run_async
from p2pnode.config import ClientConfig
from p2pnode.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from p2pnode.client.client import Client

ASK = "> "


def chat(
    *,
    model: Model = None,
    join: Join = None,
    system: Annotated[
        str | None, typer.Option("--system", metavar="TEXT", help="How the model shall behave.")
    ] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.7,
    top_p: TopP = 0.95,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = None,
    head: Head = "remote",
    home: Home = None,
) -> None:
    """Talk with a model: Ctrl-C cuts an answer short, Ctrl-D leaves."""
    swarm = client_swarm(join, home)
    sampling = sampling_of(
        temperature=temperature, top_p=top_p, repetition_penalty=repetition_penalty, seed=seed
    )
    config = ClientConfig(swarm=swarm, cache=swarm.home.cache)
    history = [{"role": "system", "content": system}] if system else []
    options = {"max_tokens": max_tokens, "sampling": sampling}
    signals = Signals()
    with _terminal_kept():
        run_async(_chat(config, model, head, history, options, signals), signals)


async def _chat(
    config: ClientConfig,
    model: str | None,
    head: str,
    history: list[dict[str, str]],
    options: dict[str, Any],
    signals: Signals,
) -> None:
    from p2pnode.client.client import Client  # heavy: torch

    output = Output()
    async with Client(model=model, head=head, config=config) as client:
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
        return sys.stdin.readline().rstrip("\n") or None
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
