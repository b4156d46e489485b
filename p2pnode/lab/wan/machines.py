"""Machines of a lab: a namespace, a home, and the real node in it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2pnode.errors import LocalError
from p2pnode.lab.wan.launcher import Launch
from p2pnode.lab.wan.namespaces import Namespace
from p2pnode.lab.wan.node import DEFAULTS, Begin, Change
from p2pnode.lab.wan.processes import Handle, Program, Programs
from p2pnode.types import LayerRange

LISTENING_WITHIN_S = 30.0
SERVING_WITHIN_S = 90.0
SMALL_DISK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """What a machine's node does; it can be started again with the same one."""

    layers: LayerRange | None
    """None: a bootstrap node."""
    model: str | None = None
    join: tuple[str, ...] = ()
    # float32 on the CPU everywhere: the comparison with the unsplit model is then exact.
    dtype: str = "float32"
    prefill_chunk_tokens: int = 0
    """See `NodeConfig.prefill_chunk_tokens`; 0: its default."""
    is_odd: bool = False
    """Whether it is a `lab.wan.node`, to which more can be done."""
    compute_s: float = 0.0
    clock_offset_s: float = 0.0
    has_small_disk: bool = False
    """Its home is a disk of `SMALL_DISK_BYTES`."""

    @property
    def needs_odd(self) -> bool:
        """Whether the plain program could not do it."""
        is_slow = self.compute_s > 0
        has_chunks = self.prefill_chunk_tokens > 0
        return self.is_odd or has_chunks or is_slow or self.clock_offset_s != 0


@dataclass(slots=True, eq=False)
class Machine:
    """One machine. Its node's events come in through `listen`, all the time."""

    name: str
    namespace: Namespace
    home: Path
    duty: Duty
    program: Program | None = None
    daemon: Handle | None = None
    peer: str = ""
    addresses: tuple[str, ...] = ()
    serving: asyncio.Event = field(default_factory=asyncio.Event)
    trouble: str = ""
    """What its ``error`` event said."""
    on_session: Callable[[Machine, dict[str, Any]], None] | None = None
    """Called when it opens one."""
    num_sessions: int = 0

    @property
    def agent(self) -> Handle | None:
        """The node's own process."""
        return self.program.handle if self.program is not None else None

    @property
    def is_ready(self) -> bool:
        """Whether it serves, or will again without our help."""
        program = self.program
        return self.serving.is_set() and program is not None and program.handle.is_alive

    @property
    def address(self) -> str:
        """The one to join through: of its own namespace, not loopback."""
        return next(a for a in self.addresses if self.namespace.address in a)

    async def start(self, programs: Programs) -> None:
        """Start its node; `wait_serving` says when it is there."""
        self.serving.clear()
        self.trouble, self.num_sessions = "", 0
        self.home.mkdir(exist_ok=True)
        self.program = await programs.start(self.name, self._launch())
        if self.duty.needs_odd:
            self.program.tell(self._begin())

    async def listen(self) -> None:
        """Follow what the node says until it ends."""
        if self.program is None:
            return
        async for fields in self.program.heard():
            self._on_event(fields)
        # Whoever waits for it to serve waits in vain.
        self.serving.set()

    async def wait_serving(self) -> None:
        """Return when it is announced (a bootstrap node: when it listens).

        Raises LocalError when it ended or is too slow.
        """
        try:
            async with asyncio.timeout(SERVING_WITHIN_S):
                await self.serving.wait()
        except TimeoutError:
            what = f"{self.name} does not serve after {SERVING_WITHIN_S:g} s"
            raise LocalError(f"{what}; is this machine busy? Try again") from None
        if self.program is None or self.program.ended.is_set():
            words = self.trouble or (self.program.last_words() if self.program else "")
            raise LocalError(f"{self.name} ended: {words}")

    def send(self, number: signal.Signals, *, agent: bool = True, daemon: bool = True) -> None:
        """A signal to its agent, its daemon, or both."""
        if agent and self.program is not None:
            self.program.handle.send(number)
        if daemon and self.daemon is not None:
            self.daemon.send(number)

    def tell(self, change: Change) -> None:
        """Change the conditions of a node that is odd."""
        if self.program is not None and self.duty.needs_odd:
            self.program.tell(change)

    def forget_key(self) -> None:
        """Be somebody else from the next start on."""
        shutil.rmtree(self.home / "keys", ignore_errors=True)

    def fill_disk(self) -> None:
        """Leave no byte on its small disk; raises LocalError when it has none."""
        if not self.duty.has_small_disk or self.program is None:
            raise LocalError(f"{self.name} has no small disk that could be filled")
        # The disk is in the mount namespace of that process; the kernel shows the way in.
        place = Path(f"/proc/{self.program.handle.pid}/root") / self.home.relative_to("/")
        with suppress(OSError), (place / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"\0" * (1 << 16))

    def _launch(self) -> Launch:
        duty = self.duty
        return Launch(
            module="p2pnode.lab.wan.node" if duty.needs_odd else "p2pnode",
            arguments=() if duty.needs_odd else self._arguments(),
            namespace=self.namespace.name,
            small_disk=str(self.home) if duty.has_small_disk else "",
            small_disk_bytes=SMALL_DISK_BYTES if duty.has_small_disk else 0,
        )

    def _arguments(self) -> tuple[str, ...]:
        duty = self.duty
        common = ["--json", "--home", str(self.home)]
        common += [part for each in duty.join for part in ("--join", each)]
        if duty.layers is None:
            return ("bootstrap", *common)
        model = ["--model", duty.model] if duty.model else []
        exact = ["--device", "cpu", "--dtype", duty.dtype]
        return ("serve", "--layers", str(duty.layers), *exact, *model, *common)

    def _begin(self) -> Begin:
        duty = self.duty
        return Begin(
            layers=str(duty.layers),
            home=str(self.home),
            join=duty.join,
            model=duty.model,
            dtype=duty.dtype,
            prefill_chunk_tokens=duty.prefill_chunk_tokens or DEFAULTS.prefill_chunk_tokens,
            compute_s=duty.compute_s,
            clock_offset_s=duty.clock_offset_s,
        )

    def _on_event(self, fields: dict[str, Any]) -> None:
        match fields["event"]:
            case "listening":
                self.peer, self.addresses = fields["peer"], tuple(fields["addresses"])
                self._find_daemon()
                if self.duty.layers is None:
                    self.serving.set()
            case "serving":
                self.serving.set()
            case "session_opened":
                self.num_sessions += 1
                if self.on_session is not None:
                    self.on_session(self, fields)
            case "session_closed":
                self.num_sessions -= 1
            case "error":
                self.trouble = str(fields.get("message", ""))

    def _find_daemon(self) -> None:
        """Its p2pd; a new one each time that the node has healed."""
        if self.daemon is not None:
            self.daemon.close()
        pid = self.program.daemon_pid() if self.program else None
        with suppress(ProcessLookupError):
            self.daemon = Handle(pid, os.pidfd_open(pid)) if pid else None
