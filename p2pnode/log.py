"""Logging for people: one line per event, ``key=value``, and nothing that a stranger can forge.

Whatever a peer wrote (names, texts of errors) passes through `escape` before it is printed; the
formatter does it once more for the whole line, so a forgotten call cannot start a new line.
"""

from __future__ import annotations

import logging
import sys
import unicodedata
from typing import TextIO

ESCAPE_LIMIT = 200
LINE_LIMIT = 4_000

QUIET_LIBRARIES = ("hivemind", "httpx", "httpcore", "huggingface_hub", "transformers", "libp2p")


def escape(text: str, limit: int = ESCAPE_LIMIT) -> str:
    """Make a stranger's text safe for a terminal: one line, at most ``limit`` characters.

    Control characters (ANSI sequences, newlines), characters that reorder or hide text
    (bidirectional marks, zero width, private use), separators other than a space and lone
    surrogates become ``\\x1b``-like escapes, and so does the backslash. Longer text ends in ``…``.
    """
    shown = "".join(map(_visible, text[:limit]))
    if len(text) <= limit and len(shown) <= limit:
        return shown
    return shown[: limit - 1] + "…"


def _visible(char: str) -> str:
    if char == " " or (char != "\\" and char.isprintable() and _keeps_its_place(char)):
        return char
    return char.encode("ascii", "backslashreplace").decode() if char > "\x7f" else _ascii(char)


def _ascii(char: str) -> str:
    return "\\\\" if char == "\\" else f"\\x{ord(char):02x}"


def _keeps_its_place(char: str) -> bool:
    """Combining marks pile up on their neighbours: one line may not reach into others."""
    return unicodedata.combining(char) == 0 and unicodedata.category(char) != "Me"


class EventFormatter(logging.Formatter):
    """``12:34:56 INFO serving.handler session opened: session=ab12 layers=0-8``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """One event; a traceback, where there is one, follows on lines of its own."""
        record.message = _unprintable_gone(record.getMessage())
        record.asctime = self.formatTime(record, self.datefmt)
        name = record.name.removeprefix("p2pnode.")
        line = f"{record.asctime} {record.levelname.lower()} {name}: {record.message}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _unprintable_gone(line: str) -> str:
    """Like `escape`, but backslashes stay: the arguments may be escaped already."""
    shown = "".join(char if char == "\\" else _visible(char) for char in line[:LINE_LIMIT])
    return shown if len(line) <= LINE_LIMIT else shown + "…"


def setup(level: str = "info", stream: TextIO | None = None) -> None:
    """Send the events of this process to ``stream`` (stderr), replacing an earlier setup.

    level: ``debug``, ``info``, ``warning`` or ``error``; ValueError for anything else
    Libraries are heard from ``warning`` on, whatever the level.
    """
    numbers = {"debug": 10, "info": 20, "warning": 30, "error": 40}
    if level not in numbers:
        raise ValueError(f"log level {escape(level)} is not one of {', '.join(numbers)}")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(EventFormatter())
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h.formatter, EventFormatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("p2pnode").setLevel(numbers[level])
    for library in QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
