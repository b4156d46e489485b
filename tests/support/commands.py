"""Real ``p2pnode`` processes: what they print, and that nothing of them is left."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, Self

import psutil

from tests.support.forks import forks

START_WITHIN_S = 300.0
END_WITHIN_S = 60.0
"""Imports alone take seconds, and on a busy machine far more; nothing waits longer than needed."""
ROOT = Path(__file__).parents[2]


def environment(**variables: str) -> dict[str, str]:
    """Ours, in which this checkout can be imported from any folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


def p2pnode(*arguments: str) -> list[str]:
    """The command line of a ``p2pnode`` command."""
    return [sys.executable, "-m", "p2pnode", *arguments]


def run(
    *arguments: str, stdin: str | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command, or with ``script`` a program, to its end; forked, see `support.forks`."""
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err, TemporaryFile("w+") as given:
        given.write(stdin or "")
        given.seek(0)
        pipes = given.fileno(), out.fileno(), err.fileno()
        process = forks().start(arguments, pipes, **{"env": environment(), **options})
        try:
            process.wait(START_WITHIN_S)
        finally:
            process.kill()
            process.wait()
        for written in (out, err):
            written.seek(0)
        return subprocess.CompletedProcess(
            p2pnode(*arguments), process.wait(), out.read(), err.read()
        )


def json_lines(text: str) -> list[dict[str, Any]]:
    """One object per line, and nothing else."""
    return [json.loads(line) for line in text.splitlines()]


class Command:
    """A command that runs with ``--json`` until told otherwise; ``with`` ends it."""

    def __init__(self, *arguments: str, **options: Any) -> None:
        self._arguments = (*arguments, "--json")
        self._options = {"env": environment(), **options}
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.seen: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        reading, writing = os.pipe()
        self._out = open(reading)
        with open(os.devnull) as nothing:
            pipes = nothing.fileno(), writing, 2
            self.process = forks().start(self._arguments, pipes, **self._options)
        os.close(writing)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(END_WITHIN_S)

    def wait_for(self, event: str, within_s: float = START_WITHIN_S) -> dict[str, Any]:
        """The next event of that name; what comes before it is in ``seen``."""
        while True:
            line = self._lines.get(timeout=within_s)
            if not line:
                raise AssertionError(f"ended before {event!r}: {self.seen}")
            self.seen.append(json.loads(line))
            if self.seen[-1]["event"] == event:
                return self.seen[-1]

    def pass_over(self) -> None:
        """Take what it has said by now into ``seen``."""
        while not self._lines.empty():
            self.seen.append(json.loads(self._lines.get()))

    def end(self, number: signal.Signals) -> int:
        """Send a signal, wait for the end and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(END_WITHIN_S)

    def children(self) -> list[psutil.Process]:
        """Its child processes now: the p2pd."""
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found

    def _read(self) -> None:
        with self._out as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")


def sockets_in(folder: Path) -> list[str]:
    """Names of the sockets that a home still has."""
    return [path.name for path in folder.rglob("*") if path.is_socket()]
