"""Starts ``p2pnode`` processes: everything is imported once, then each start is a fork.

To import torch takes seconds of a core, and the suite starts some fifty nodes and clients. From the
fork on each is the real program, with arguments, environment, folder and pipes of its own; it dies
when the tests do. ``python -m tests.support.forks`` is the program that forks.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from p2pnode.net.parent import die_with_parent

WARM = (
    "p2pnode.cli.answer",
    "p2pnode.cli.conversation",
    "p2pnode.cli.node_face",
    "p2pnode.cli.swarm_table",
    "p2pnode.client.client",
    "p2pnode.node.server",
    "transformers.models.llama.modeling_llama",
)
"""What nodes and clients import."""
WARM_WITHIN_S = 120.0
MAX_BYTES = 1 << 16
NUM_PIPES = 4
"""Stdin, stdout, stderr, and where the exit status goes, come with the request."""
STATUS = struct.Struct("<i")


class Forked:
    """A process that was forked; used as `subprocess.Popen` is."""

    def __init__(self, pid: int, status: int) -> None:
        """status: the descriptor that its exit status comes through."""
        self.pid = pid
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, as soon as it has one; raises TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(["p2pnode", str(self.pid)], timeout or 0.0)
            (self.returncode,) = STATUS.unpack(os.read(self._status, STATUS.size))
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Forks:
    """The program that forks, as seen from the tests: one for each of their processes."""

    def __init__(self, env: dict[str, str]) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.forks"],
                stdin=theirs.fileno(),
                start_new_session=True,
                preexec_fn=die_with_parent(),
                env=env,
            )
        self._requests.settimeout(WARM_WITHIN_S)
        if not self._requests.recv(MAX_BYTES):
            raise AssertionError("the program that forks has ended")

    def start(
        self,
        arguments: tuple[str, ...],
        pipes: tuple[int, int, int],
        *,
        env: dict[str, str],
        cwd: Path | None = None,
        script: Path | None = None,
    ) -> Forked:
        """``p2pnode ARGUMENTS``, or a script with these; ``pipes`` stay the caller's."""
        reading, writing = os.pipe()
        request = {
            "arguments": arguments,
            "env": env,
            "cwd": str(cwd or Path.cwd()),
            "script": str(script) if script is not None else None,
        }
        try:
            data = json.dumps(request).encode()
            socket.send_fds(self._requests, [data], [*pipes, writing])
        finally:
            os.close(writing)
        return Forked(json.loads(self._requests.recv(MAX_BYTES)), reading)

    def close(self) -> None:
        """End it, and with it all that it has started."""
        self._requests.close()
        self._process.wait()


def serve(requests: socket.socket) -> None:
    """Fork for each request and tell how children end, until the tests close their end."""
    woken, waker = os.pipe()
    for end in (woken, waker):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    statuses: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([requests.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, MAX_BYTES)
            _tell_ends(statuses)
        if requests.fileno() in ready:
            data, pipes, _, _ = socket.recv_fds(requests, MAX_BYTES, NUM_PIPES)
            if not data:
                return
            die = die_with_parent()
            pid = os.fork()
            if pid == 0:
                _become(json.loads(data), pipes, die)
            statuses[pid] = pipes.pop()
            for pipe in pipes:
                os.close(pipe)
            requests.send(json.dumps(pid).encode())


def _tell_ends(statuses: dict[int, int]) -> None:
    """Bury the dead, and pass their exit statuses on."""
    for pid in list(statuses):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            os.write(statuses[pid], STATUS.pack(status))
            os.close(statuses.pop(pid))


def _become(request: dict[str, Any], pipes: list[int], die: Callable[[], None] | None) -> NoReturn:
    """The child's whole life; whatever happens it never returns into the program that forks."""
    status = 1
    try:
        if die is not None:
            die()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, pipe in enumerate(pipes[:3]):
            os.dup2(pipe, number)
        os.closerange(3, max(pipes) + 1)
        sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
        sys.stderr = open(2, "w", buffering=1, closefd=False)
        os.environ.clear()
        os.environ.update(request["env"])
        tempfile.tempdir = None  # it may be another folder in this environment
        os.chdir(request["cwd"])
        sys.argv = [request["script"] or "p2pnode", *request["arguments"]]
        if request["script"] is None:
            runpy.run_module("p2pnode", run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(request["script"], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def main() -> None:
    """The program."""
    ctypes.CDLL(None)  # loaded before the fork, not after it
    for name in WARM:
        import_module(name)
    requests: Any = socket.socket(fileno=os.dup(0))
    requests.send(b"ready")
    serve(requests)


@functools.cache
def forks() -> Forks:
    """The one of this process of the tests; started when it is first needed."""
    return Forks({**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})


def close_forks() -> None:
    """End it, if it was started."""
    if forks.cache_info().currsize:
        forks().close()
        forks.cache_clear()


if __name__ == "__main__":
    main()
