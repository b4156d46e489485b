"""What a command shows: text for people, or with ``--json`` one object per line for scripts.

Results go to stdout; everything about how it goes (progress, notes, errors) to stderr. Colour,
progress bars and tables appear on a terminal only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from p2pnode.cli.exits import ReaderGone
from p2pnode.errors import NoChain, P2PNodeError
from p2pnode.log import escape
from p2pnode.types import Chain

MESSAGE_LIMIT = 1000

DIM, PLAIN = "\x1b[2m", "\x1b[0m"

_LAYOUT = frozenset("\n\t\u200c\u200d")
"""Line breaks, and the joiners that some scripts and emoji need."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command's results go. Raises ReaderGone when nobody reads them any more."""

    as_json: bool = False

    def event(self, event: str, **fields: Any) -> None:
        """One JSON object on one line, at once; nothing for people."""
        if self.as_json:
            _print(json.dumps({"event": event, **fields}))

    def result(self, fields: dict[str, Any]) -> None:
        """The one JSON object that a command answers with."""
        if self.as_json:
            _print(json.dumps(fields))

    def say(self, text: str) -> None:
        """A line for people."""
        if not self.as_json:
            _print(text)

    def write(self, text: str) -> None:
        """A piece of generated text, as it is; on a terminal without control characters."""
        if not self.as_json:
            shown = printable(text) if sys.stdout.isatty() else text
            _print(shown, end="")

    def paint(self, text: str, colour: str) -> None:
        """Words of ours in the middle of generated text, in a colour of their own."""
        if not self.as_json:
            shown = f"{colour}{text}{PLAIN}" if sys.stdout.isatty() else text
            _print(shown, end="")

    def note(self, text: str) -> None:
        """A line beside the result, for people who look on."""
        if not self.as_json and sys.stderr.isatty():
            print(f"{DIM}{text}{PLAIN}", file=sys.stderr, flush=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table for people."""
        if self.as_json:
            return
        if sys.stdout.isatty():
            _rich_table(columns, rows)
            return
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        for row in (columns, *rows):
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            _print("  ".join(cells).rstrip())


def _print(text: str, end: str = "\n") -> None:
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        raise ReaderGone from None


def printable(text: str) -> str:
    """Generated text for a terminal: any script and layout, but nothing that steers it."""
    return "".join(map(_shown, text))


def _shown(char: str) -> str:
    return char if char.isprintable() or char in _LAYOUT else escape(char)


def layers_of(error: P2PNodeError) -> str | None:
    """The layers that an error is about, as scripts see them: ``14-26``, or ``0-3,9-17``."""
    missing = error.missing if isinstance(error, NoChain) else ()
    return ",".join(map(str, missing)) or None


def chain_fields(chain: Chain) -> list[dict[str, str]]:
    """A chain as scripts see it."""
    return [{"peer": hop.peer, "layers": str(hop.layers)} for hop in chain.hops]


def one_line(error: P2PNodeError) -> str:
    """What people read of an error: what, who, what to do."""
    return f"{error.kind}: {escape(' '.join(str(error).split()), MESSAGE_LIMIT)}"


class ProgressBar:
    """A bar on stderr while bytes are read or fetched; nothing when nobody looks.

    counts: it is about things, not bytes
    """

    def __init__(self, what: str, *, counts: bool = False) -> None:
        self._what = what
        self._counts = counts
        self._progress: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def update(self, done_bytes: int, total_bytes: int, what: str = "") -> None:
        """Show how far what is going on is; ``total_bytes`` 0 when that is not known."""
        if not sys.stderr.isatty():
            return
        if self._progress is None:
            self._progress = _rich_progress(counts=self._counts)
            self._progress.add_task(self._what, total=None)
            self._progress.start()
        task = self._progress.task_ids[0]
        total, label = total_bytes or None, what or self._what
        self._progress.update(task, completed=done_bytes, total=total, description=label)

    def stop(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _rich_progress(*, counts: bool) -> Any:
    from rich.console import Console  # only where it is shown
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn

    amount = MofNCompleteColumn() if counts else DownloadColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount)
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # only where it is shown
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
