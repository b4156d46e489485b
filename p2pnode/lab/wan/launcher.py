"""Starts programs in namespaces: everything is imported once, then each start is a fork.

``python -m p2pnode.lab.wan.launcher MODULE...`` imports what nodes and clients need and takes
requests on the socket that is its stdin. A child has its own session and dies with the launcher,
which dies with the lab. From the fork on it is the real program: the command line's own `main`
with its own arguments, or one of the lab's.
"""

from __future__ import annotations

import ctypes
import json
import os
import runpy
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from p2pnode.errors import BadRequest
from p2pnode.lab.wan import kernel
from p2pnode.lab.wan.records import MAX_LINE_BYTES, decode
from p2pnode.net.parent import die_with_parent

NUM_PIPES = 3
"""A child's stdin, stdout and stderr come with the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Start a program; answered with its process id."""

    module: str
    """As after ``python -m``."""
    arguments: tuple[str, ...]
    namespace: str
    small_disk: str = ""
    """A folder that this program finds on a disk of ``small_disk_bytes``."""
    small_disk_bytes: int = 0


def serve(requests: socket.socket) -> None:
    """Until the lab closes its end. Children are not waited for: the kernel clears them away."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    own = os.getpid()
    while True:
        data, pipes, _, _ = socket.recv_fds(requests, MAX_LINE_BYTES, NUM_PIPES)
        if not data:
            return
        die = die_with_parent()
        try:
            launch = decode(data, {"Launch": Launch})
            answer: dict[str, Any] = {"pid": os.fork()}
        except (BadRequest, OSError) as error:
            answer = {"error": str(error)}
        if os.getpid() != own:
            _become(launch, pipes, die)
        for pipe in pipes:
            os.close(pipe)
        requests.send(json.dumps(answer).encode())


def _become(launch: Launch, pipes: list[int], die: Callable[[], None] | None) -> NoReturn:
    """The child's whole life; whatever happens it never returns into the launcher."""
    status = 1
    try:
        if die is not None:
            die()
        os.setsid()
        for number, pipe in enumerate(pipes):
            os.dup2(pipe, number)
            os.close(pipe)
        # New ones: the launcher's know whether what they were opened on could seek.
        sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
        sys.stderr = open(2, "w", buffering=1, closefd=False)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        kernel.enter(launch.namespace)
        if launch.small_disk:
            kernel.mount_small_disk(Path(launch.small_disk), launch.small_disk_bytes)
        sys.argv = [launch.module, *launch.arguments]
        runpy.run_module(launch.module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def warm(modules: list[str]) -> None:
    """Import what children would import, so that they find it there."""
    for name in modules:
        import_module(name)


def main() -> None:
    """The program."""
    ctypes.CDLL(None)  # loaded before the fork, not after it
    warm(sys.argv[1:])
    requests: Any = socket.socket(fileno=os.dup(0))
    requests.send(json.dumps({"pid": os.getpid()}).encode())
    serve(requests)


if __name__ == "__main__":
    main()
