"""Real processes for tests that ask several questions of one swarm."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from p2pnode.types import PeerId
from tests.support.commands import Command

SERVE = ("--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1")


class Served:
    """One ``p2pnode serve`` of the built-in model."""

    def __init__(self, command: Command, home: Path) -> None:
        self.command = command
        self.home = home
        self.listening: dict[str, Any] = {}

    def wait_serving(self) -> None:
        """Return when it serves (again)."""
        self.listening = self.command.wait_for("listening")
        self.command.wait_for("serving")

    @property
    def peer(self) -> PeerId:
        return PeerId(self.listening["peer"])

    @property
    def address(self) -> str:
        return str(self.listening["addresses"][0])

    def daemon(self) -> psutil.Process:
        """Its p2pd."""
        (found,) = [each for each in self.command.children() if "p2pd" in each.name()]
        return found

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.command.process.pid, signal.SIGKILL)


@contextmanager
def served(home: Path, *ranges: str, options: tuple[str, ...] = ()) -> Iterator[list[Served]]:
    """Nodes of one home, one per range of layers; all start at the same time."""
    with ExitStack() as stack:
        nodes = []
        for layers in ranges:
            arguments = ("serve", "--layers", layers, "--home", str(home), *SERVE, *options)
            nodes.append(Served(stack.enter_context(Command(*arguments)), home))
            if len(nodes) == 1:  # the others find it in the home
                nodes[0].listening = nodes[0].command.wait_for("listening")
        nodes[0].command.wait_for("serving")
        for node in nodes[1:]:
            node.wait_serving()
        yield nodes


@contextmanager
def short_home() -> Iterator[Path]:
    """A home with a short path: sockets need one."""
    with tempfile.TemporaryDirectory(prefix="p2pnode-") as folder:
        yield Path(folder)
