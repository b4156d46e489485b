"""The go-libp2p daemon as our child process: started with our flags, watched, never left behind.

Rules:
- it listens on one number for TCP and QUIC, and it must get both; a client takes any number, so
  that who cannot be dialled can dial it, and does without when it gets none;
- its own DHT, gossip and relay service are off: they answer strangers;
- it dies with us: by SIGTERM when closed, by the kernel when we are killed, and by itself when
  nobody is connected to its socket. Ctrl-C does not reach it: it has a session of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from multiaddr import Multiaddr

from p2pnode.errors import DaemonDied, PortBusy
from p2pnode.net import addresses
from p2pnode.net.control import Control
from p2pnode.net.identity import Identity, write_new
from p2pnode.net.libraries import P2PD_FILE
from p2pnode.net.parent import die_with_parent
from p2pnode.tasks import Tasks

log = logging.getLogger(__name__)

DEFAULT_PORT = 4001
MAX_PORTS_TRIED = 1000
NUM_ANY_PORTS = 3
START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 1.0
MAX_TAIL_BYTES = 4096
_ENVIRONMENT = {
    "GOLOG_LOG_LEVEL": "error",
    "QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING": "true",
    "GOGC": "50",  # collects garbage twice as often: a third less memory, of which it keeps 16 MB
}
_READY = b"Peer ID:"
_ALL_HOSTS = "0.0.0.0"


class Daemon:
    """A running p2pd. ``async with`` starts it; afterwards nothing of it is left.

    Raises PortBusy when ``port`` is taken, DaemonDied when it does not start.
    """

    def __init__(
        self,
        identity: Identity,
        folder: Path,
        *,
        host: str = _ALL_HOSTS,
        port: int | None = None,
        is_client: bool = False,
    ) -> None:
        self.folder = folder
        self.port = 0
        """The number it listens on; 0 for a client that got none."""
        self.socket = folder / "p2pd.sock"
        self.control = Control(self.socket)
        self._identity = identity
        self._host = host
        self._explicit_port = port
        self._is_client = is_client
        self._child: _Child | None = None
        self._tasks = Tasks()
        self._is_expected_to_end = False

    @property
    def pid(self) -> int:
        """Its process id; 0 when it does not run."""
        return self._child.process.pid if self._child else 0

    async def __aenter__(self) -> Self:
        key = self._identity.path
        if key is None:
            key = self.folder / "key"
            write_new(key, self._identity)
        await self._tasks.__aenter__()
        try:
            await self._start_somewhere(key)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._stop()
        finally:
            await self._tasks.__aexit__(kind, error, trace)

    async def wait_died(self) -> None:
        """Return never; raises DaemonDied when the process has ended by itself."""
        child = self._child
        if child is None:
            raise DaemonDied("p2pd does not run")
        await child.ended.wait()
        if self._is_expected_to_end:
            await asyncio.Event().wait()
        raise DaemonDied(child.obituary())

    def expect_end(self) -> None:
        """From now on its end is no accident."""
        self._is_expected_to_end = True

    async def _start_somewhere(self, key: Path) -> None:
        for port in _any_ports(self._host) if self._is_client else _candidates(self._explicit_port):
            if not _is_free(self._host, port):
                continue
            hosts = addresses.listening(self._host, port)
            await self._start(key, [f"-hostAddrs={','.join(hosts)}"])
            if await self._has_both():
                self.port = port
                return
            # Somebody took the number between our look and the daemon's. It goes on without.
            await self._stop()
        if self._is_client:
            await self._start(key, ["-noListenAddrs=1"])
            return
        if self._explicit_port is not None:
            raise PortBusy(f"port {self._explicit_port} is taken on {self._host}; try another")
        raise PortBusy(f"no free port from {DEFAULT_PORT} on {self._host}")

    async def _start(self, key: Path, where: list[str]) -> None:
        self.socket.unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(
            str(P2PD_FILE),
            *_flags(self.socket, key),
            *where,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=_ENVIRONMENT,
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )
        self._child = child = _Child(process)
        self._tasks.start(child.watch(), name="p2pd")
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await child.ready.wait()
        except TimeoutError as error:
            raise DaemonDied(f"p2pd did not start within {START_TIMEOUT_S:g} s") from error
        if child.ended.is_set():
            raise DaemonDied(child.obituary())

    async def _has_both(self) -> bool:
        """Whether it listens on TCP and on QUIC: it starts with one of them, too."""
        _, found = await self.control.identify()
        kinds = {addresses.is_quic(Multiaddr(address)) for address in found}
        return kinds == {True, False}

    async def _stop(self) -> None:
        child = self._child
        if child is None:
            return
        try:
            with contextlib.suppress(ProcessLookupError):
                child.process.terminate()
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await child.ended.wait()
        except TimeoutError:
            log.warning("p2pd did not end within %g s: killed", STOP_TIMEOUT_S)
        finally:
            await child.kill()


class _Child:
    """One process, and the end of what it printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.ready = asyncio.Event()
        """It listens, or has ended."""
        self.ended = asyncio.Event()
        self._tail = bytearray()

    async def watch(self) -> None:
        """Read what it prints, so that it never waits for us, until it ends."""
        output = self.process.stdout
        if output is None:
            raise DaemonDied("p2pd was started without a pipe for what it prints")
        while data := await output.read(MAX_TAIL_BYTES):
            self._tail += data
            if _READY in self._tail:
                self.ready.set()
            del self._tail[:-MAX_TAIL_BYTES]
        await self.process.wait()
        self.ended.set()
        self.ready.set()

    async def kill(self) -> None:
        """End it for certain, and wait for its end: the loop must not be closed before."""
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError, TimeoutError):
                self.process.kill()
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await self.ended.wait()

    def obituary(self) -> str:
        """How it ended, in one line."""
        lines = self._tail.decode(errors="replace").splitlines()
        # What it prints when all is well is no reason.
        said = [line for line in lines if not line.startswith(("/", "Peer ", "Control "))]
        return f"p2pd ended (status {self.process.returncode}) {' '.join(said[-1:])[:200]}".rstrip()


def _flags(control: Path, key: Path) -> list[str]:
    return [
        f"-listen=/unix{control}",
        f"-id={key}",
        "-connManager=1",
        "-connLo=1024",
        "-connHi=2048",
        "-connGrace=20s",  # by default a crowd had two minutes
        "-autonat=0",
        "-natPortMap=0",
        "-relay=0",
        "-relayService=0",
        "-autoRelay=0",
        "-tls=1",
        "-b=0",
        "-idleTimeout=30s",
    ]


def _candidates(explicit: int | None) -> Iterable[int]:
    # An explicit number is tried again: somebody may only have looked at it just then.
    if explicit is not None:
        return (explicit,) * 3
    return range(DEFAULT_PORT, DEFAULT_PORT + MAX_PORTS_TRIED)


def _any_ports(host: str) -> Iterator[int]:
    """Numbers that the system gives away, outside those that nodes take; none when it refuses."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(NUM_ANY_PORTS):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((host, 0))
            except OSError:
                return
            port = probe.getsockname()[1]
        yield port


def _is_free(host: str, port: int) -> bool:
    """Whether nobody has the TCP or UDP port.

    The daemon itself would not tell: it shares a TCP port with other daemons of the same user.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(family, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return False
                raise PortBusy(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return True
