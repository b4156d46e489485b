"""The command ``p2pnode``. Nothing heavy is imported here: ``--help`` must be instant.

The last line of every command is `main`: each error becomes one line and an exit status.

- 0 well
- 1 an error that was printed
- 2 usage
- 3 no chain of peers, or nobody to join
- 130 interrupted
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Annotated, NoReturn, TextIO

import typer

from p2pnode import log
from p2pnode.cli import (
    batch,
    bench,
    bootstrap,
    chat,
    completion,
    demo,
    doctor,
    gateway,
    generate,
    keys,
    lab,
    model,
    plan,
    serve,
    service,
    status,
    swarm,
    top,
    version,
)
from p2pnode.cli.exits import (
    FAILED,
    INTERRUPTED,
    NO_CHAIN,
    USAGE,
    WELL,
    Failed,
    Interrupted,
    ReaderGone,
)
from p2pnode.cli.output import MESSAGE_LIMIT, Output, one_line
from p2pnode.errors import JoinFailed, NoChain, P2PNodeError
from p2pnode.log import escape

app = typer.Typer(
    name="p2pnode",
    help="Run large language models on volunteers' machines, peer to peer.",
    epilog="Start with: p2pnode demo",
    add_completion=False,
    rich_markup_mode=None,
    invoke_without_command=True,
)


@app.callback()
def p2pnode(
    context: typer.Context,
    *,
    debug: Annotated[
        bool, typer.Option("--debug", help="Log everything, and show where errors come from.")
    ] = False,
) -> None:
    """Run large language models on volunteers' machines, peer to peer."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(USAGE)
    is_node = context.invoked_subcommand in ("serve", "bootstrap", "gateway")
    log.setup("debug" if debug else "info" if is_node else "error")


app.command()(serve.serve)
app.command()(bootstrap.bootstrap)
app.command()(generate.generate)
app.command()(chat.chat)
app.add_typer(gateway.app, name="gateway")
app.command()(batch.batch)
app.command()(demo.demo)
app.command()(status.status)
app.command()(top.top)
app.command()(doctor.doctor)
app.add_typer(keys.app, name="keys")
app.add_typer(swarm.app, name="swarm")
app.add_typer(model.app, name="model")
app.command()(plan.plan)
app.command()(bench.bench)
app.add_typer(lab.app, name="lab")
app.add_typer(service.app, name="service")
app.command()(completion.completion)
app.command()(version.version)


def main() -> NoReturn:
    """Run the command that `sys.argv` names, and leave with its exit status."""
    for stream in (sys.stdout, sys.stderr):
        _never_refuse_a_character(stream)
    code, is_waited_for = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
    if not is_waited_for:
        # Threads that load or download cannot be cancelled; everything else is closed.
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> tuple[int, bool]:
    """Run a command; returns its exit status, and whether to wait for its threads."""
    options = list(takewhile(lambda each: each != "--", arguments))
    completion.prepare()
    report = Report(Output(as_json="--json" in options), "--debug" in options)
    try:
        status = app(list(arguments), prog_name="p2pnode", standalone_mode=False)
    except Interrupted as interrupted:
        return interrupted.status, False
    except KeyboardInterrupt:
        return INTERRUPTED, True
    except ReaderGone:
        _silence_stdout()
        return WELL, True
    except Failed as failed:
        return report.failed(failed.error, failed.fields), True
    except P2PNodeError as error:
        return report.failed(error, {}), True
    except typer.TyperException as error:
        return report.misused(error), True
    except Exception as error:  # noqa: BLE001 - the last line: a bug must end in one line, too
        return report.bug(error), True
    return status or WELL, True


@dataclass(frozen=True, slots=True)
class Report:
    """Tells people (one line on stderr) and scripts (an ``error`` event) what went wrong."""

    output: Output
    is_debug: bool

    def failed(self, error: P2PNodeError, fields: dict[str, object]) -> int:
        """An error of ours."""
        print(one_line(error), file=sys.stderr)
        self._trace(error)
        self.output.event("error", kind=error.kind, message=str(error), **fields)
        return NO_CHAIN if isinstance(error, NoChain | JoinFailed) else FAILED

    def misused(self, error: typer.TyperException) -> int:
        """A command or option that is missing, unknown, or not of its form."""
        message = escape(" ".join(error.format_message().split()), MESSAGE_LIMIT)
        print(f"Usage: {message} See: p2pnode --help", file=sys.stderr)
        self.output.event("error", kind="Usage", message=message)
        return USAGE

    def bug(self, error: Exception) -> int:
        """Ours to mend."""
        what = escape(f"{type(error).__name__}: {error}", MESSAGE_LIMIT)
        print(f"Bug: {what}; please report what `p2pnode --debug ...` prints", file=sys.stderr)
        self._trace(error)
        self.output.event("error", kind="Bug", message=what)
        return FAILED

    def _trace(self, error: Exception) -> None:
        if self.is_debug:
            traceback.print_exception(error)


def _never_refuse_a_character(stream: TextIO) -> None:
    """A terminal that cannot show a character gets its escape instead of an error."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _silence_stdout() -> None:
    """Whoever read us has gone; Python must not complain when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
