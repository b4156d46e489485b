"""Real programs in namespaces: started by the launcher, heard line by line, signalled safely."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from p2pnode.errors import LocalError
from p2pnode.lab.wan.helper import python_environment
from p2pnode.lab.wan.launcher import Launch
from p2pnode.lab.wan.records import MAX_LINE_BYTES, encode
from p2pnode.net.parent import die_with_parent

WARM_WITHIN_S = 120.0
FORK_WITHIN_S = 20.0
END_WITHIN_S = 5.0


@dataclass(slots=True, eq=False)
class Handle:
    """A process by its pidfd: signals never go to somebody who got its number later."""

    pid: int
    pidfd: int
    is_closed: bool = False

    @property
    def is_alive(self) -> bool:
        """Whether it still runs (or is stopped)."""
        return not self.is_closed and not select.select([self.pidfd], [], [], 0)[0]

    def send(self, number: signal.Signals) -> None:
        """A signal; nothing happens when it has ended."""
        if not self.is_closed:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Forget it."""
        if not self.is_closed:
            os.close(self.pidfd)
        self.is_closed = True


@dataclass(slots=True, eq=False)
class Program:
    """One running program that the launcher has started."""

    name: str
    handle: Handle
    events: asyncio.StreamReader
    pipe: asyncio.BaseTransport
    """What ``events`` come through; closed at their end."""
    commands: int
    """Descriptor of its stdin."""
    log_file: Path
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def daemon_pid(self) -> int | None:
        """The process id of its p2pd; None when it has none."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.handle.pid).children():
                if child.name().startswith("p2pd"):
                    return int(child.pid)
        return None

    def tell(self, record: Any) -> None:
        """A line to its stdin; nothing happens when it has ended."""
        if not self.ended.is_set():
            with contextlib.suppress(BrokenPipeError):
                os.write(self.commands, encode(record))

    async def heard(self) -> AsyncGenerator[dict[str, Any], None]:
        """What it says, until it ends."""
        async for line in self.events:
            yield json.loads(line)
        self.pipe.close()

    async def wait_for(self, event: str, within_s: float) -> dict[str, Any]:
        """The next event of that name; raises LocalError when it ends or takes too long."""
        try:
            async with asyncio.timeout(within_s):
                async for fields in self.heard():
                    if fields["event"] == event:
                        return fields
        except TimeoutError:
            raise LocalError(f"{self.name}: no {event!r} within {within_s:g} s") from None
        raise LocalError(f"{self.name} ended before {event!r}: {self.last_words()}")

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self.log_file.read_text(errors="replace").splitlines() or ["it said nothing"]
        return lines[-1][:300]


class Programs:
    """The launcher, and what it has started. ``async with`` ends all of it."""

    def __init__(self, folder: Path, warm: tuple[str, ...]) -> None:
        """folder: for logs; warm: modules to import before the first start."""
        self._folder = folder
        self._warm = warm
        self._programs: list[Program] = []
        self._pipes: list[asyncio.BaseTransport] = []
        self._starting = asyncio.Lock()
        self._requests: socket.socket
        self._launcher: asyncio.subprocess.Process

    async def __aenter__(self) -> Self:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, (self._folder / "launcher.log").open("wb") as log:
            self._launcher = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "p2pnode.lab.wan.launcher",
                *self._warm,
                stdin=theirs.fileno(),
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(),
                env=python_environment(),
            )
        ours.setblocking(False)
        self._requests = ours
        try:
            await self._answer(WARM_WITHIN_S)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def start(self, name: str, launch: Launch) -> Program:
        """Start a program; its stderr goes to ``NAME.log``."""
        log_file = self._folder / f"{name}.log"
        stdin, commands = os.pipe()
        events, stdout = os.pipe()
        stderr = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            async with self._starting:
                socket.send_fds(self._requests, [encode(launch)], [stdin, stdout, stderr])
                pid = (await self._answer(FORK_WITHIN_S))["pid"]
            pidfd = os.pidfd_open(pid)
        except BaseException:
            os.close(commands)
            os.close(events)
            raise
        finally:
            for each in (stdin, stdout, stderr):
                os.close(each)
        reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
        loop = asyncio.get_running_loop()
        pipe, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(events, "rb", 0)
        )
        self._pipes.append(pipe)
        program = Program(name, Handle(pid, pidfd), reader, pipe, commands, log_file)
        self._programs.append(program)
        loop.add_reader(pidfd, self._on_end, program)
        return program

    async def end(self, program: Program) -> None:
        """SIGTERM, and SIGKILL when that is not enough."""
        program.handle.send(signal.SIGCONT)
        program.handle.send(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_WITHIN_S):
                await program.ended.wait()
        program.handle.send(signal.SIGKILL)

    def pids(self) -> list[int]:
        """The programs that run, and their daemons."""
        children = psutil.Process(self._launcher.pid).children(recursive=True)
        return [int(each.pid) for each in children]

    def _on_end(self, program: Program) -> None:
        """Its pidfd has become readable: it is dead."""
        asyncio.get_running_loop().remove_reader(program.handle.pidfd)
        self._programs.remove(program)
        program.ended.set()
        program.handle.close()
        os.close(program.commands)

    async def _answer(self, within_s: float) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(within_s):
                data = await loop.sock_recv(self._requests, MAX_LINE_BYTES)
        except TimeoutError:
            raise LocalError(f"the launcher did not answer within {within_s:g} s") from None
        if not data:
            log = (self._folder / "launcher.log").read_text(errors="replace").splitlines()
            raise LocalError(f"the launcher has ended: {' '.join(log[-1:])[:300]}")
        answer: dict[str, Any] = json.loads(data)
        if "error" in answer:
            raise LocalError(f"the launcher says: {answer['error']}")
        return answer

    async def _end(self) -> None:
        programs = list(self._programs)
        for program in programs:
            program.handle.send(signal.SIGKILL)
        for program in programs:
            await program.ended.wait()
        for pipe in self._pipes:
            pipe.close()
        with contextlib.suppress(ProcessLookupError):
            self._launcher.kill()
        await self._launcher.wait()
        self._requests.close()
