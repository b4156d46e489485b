"""`transport.Transport` over libp2p: our own p2pd, its control socket, and streams of bytes.

Every wait for the daemon has a deadline. When it dies, what waits fails at once: streams read as
ended (PeerLost), requests raise DaemonDied, and so does `wait_closed`. It is not started again
here: the owner makes a new transport, and everything on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from p2pnode.errors import DaemonDied, P2PNodeError, PeerForeign, PeerLost, PeerTimeout
from p2pnode.net import addresses
from p2pnode.net.control import TIMEOUT_S, Refusal, read_stream_info
from p2pnode.net.dialling import binary, dial, is_foreign, listens, reason, seen_at
from p2pnode.net.identity import Identity
from p2pnode.net.libp2p_stream import LibP2PStream
from p2pnode.net.libraries import Multiaddr, PeerID
from p2pnode.net.p2pd import Daemon
from p2pnode.net.run_folder import run_folder
from p2pnode.net.socket_stream import SocketStream
from p2pnode.net.transport import ByteStream, StreamHandler
from p2pnode.net.unary import fail_calls, replicated
from p2pnode.tasks import Tasks
from p2pnode.types import PeerId

log = logging.getLogger(__name__)

MAX_STREAMS = 8192
MAX_STREAMS_OF_PEER = 64
"""That it has opened, of all protocols together."""


class P2PTransport:
    """Our place in libp2p. ``async with`` starts the daemon; raises PortBusy, DaemonDied."""

    def __init__(
        self,
        identity: Identity,
        run: Path,
        *,
        host: str = "0.0.0.0",
        port: int | None = None,
        announce: tuple[str, ...] = (),
        is_client: bool = False,
    ) -> None:
        self.p2p: Any = None
        """hivemind's P2P on our daemon, for the DHT."""
        self._identity = identity
        self._run = run
        self._host = host
        self._port = port
        self._announce = announce
        self._is_client = is_client
        self._addresses: tuple[str, ...] = ()
        self._handlers: dict[str, StreamHandler] = {}
        self._streams: set[LibP2PStream] = set()
        self._inbound: Counter[PeerId] = Counter()
        self._tasks = Tasks()
        self._is_open = False
        self._stack = contextlib.AsyncExitStack()
        self._daemon: Daemon

    @property
    def peer(self) -> PeerId:
        """Our own id."""
        return self._identity.peer

    @property
    def addresses(self) -> tuple[str, ...]:
        """Our dialable addresses, announced ones first, TCP before QUIC; none for a client."""
        return self._addresses

    @property
    def port(self) -> int:
        """The port that we listen on, TCP and UDP; 0 for a client that could get none."""
        return self._daemon.port

    @property
    def folder(self) -> Path:
        """A private folder that lives as long as we do (see `net.run_folder`)."""
        return self._daemon.folder

    @property
    def daemon_pid(self) -> int:
        """The process id of p2pd."""
        return self._daemon.pid

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            folder = stack.enter_context(run_folder(self._run))
            # Checked before anything is started: what is wrong in it is the caller's fault.
            addresses.dialable(self.peer, self._host, 0, self._announce)
            daemon = Daemon(
                self._identity,
                folder,
                host=self._host,
                port=self._port,
                is_client=self._is_client,
            )
            self._daemon = await stack.enter_async_context(daemon)
            self.p2p = await stack.enter_async_context(replicated(daemon.socket))
            # It ends by itself when hivemind's connection goes: from here on that is no accident.
            stack.callback(daemon.expect_end)
            loop, path = asyncio.get_running_loop(), str(self._accept_path())
            server = await loop.create_unix_server(lambda: SocketStream(self._on_socket), path)
            stack.callback(server.close)
            await self._tasks.__aenter__()
            self._stack = stack.pop_all()
        if not self._is_client:
            self._addresses = addresses.dialable(self.peer, self._host, daemon.port, self._announce)
        self._is_open = True
        self._tasks.start(self._watch(), "p2pd-watch")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_open = False
        for stream in list(self._streams):
            stream.close()
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            await self._stack.aclose()

    async def wait_closed(self) -> None:
        """Return never; raises DaemonDied when the daemon has ended."""
        await self._daemon.wait_died()

    async def connect(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """Make sure that a connection exists; raises PeerLost, PeerTimeout or DaemonDied.

        Near addresses (this machine, its networks) are tried first and over TCP, which costs less
        there; the others all at once, QUIC a little before TCP.
        """
        await dial(self._daemon.control, peer, addresses)

    def listens_at(self) -> tuple[str, ...]:
        """See `Ground.listens_at`."""
        port = self._daemon.port
        return addresses.dialable(self.peer, self._host, port, self._announce) if port else ()

    async def observed(self) -> dict[PeerId, tuple[str, ...]]:
        """See `Ground.observed`; raises DaemonDied."""
        try:
            return await seen_at(self._daemon.control)
        except (Refusal, TimeoutError) as error:
            raise DaemonDied(f"p2pd does not say who is connected: {error}") from error

    def may_ask(self, peer: PeerId) -> bool:
        """See `Ground.may_ask`."""
        return True

    async def answers(self, address: str) -> bool:
        """See `Ground.answers`."""
        return await listens(address)

    async def open_stream(self, peer: PeerId, protocol: str) -> ByteStream:
        """Open a stream to a connected peer; raises PeerLost, PeerTimeout or DaemonDied."""
        try:
            socket = await self._daemon.control.open_stream(binary(peer), protocol)
        except Refusal as error:
            kind = PeerForeign if is_foreign(error) else PeerLost
            raise kind(peer, reason(error)) from error
        except TimeoutError as error:
            what = f"opened no stream within {TIMEOUT_S:g} s"
            raise PeerTimeout(peer, what) from error
        if not self._is_open:
            socket.close()
            raise DaemonDied("the transport is closed")
        return LibP2PStream(peer, socket, self._streams)

    async def protect(self, peer: PeerId, is_protected: bool) -> None:
        """See `transport.Transport.protect`; raises DaemonDied."""
        try:
            await self._daemon.control.protect(binary(peer), is_protected)
        except (Refusal, TimeoutError) as error:
            raise DaemonDied(f"p2pd does not protect {peer.short}: {error}") from error

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Answer inbound streams of this protocol; each runs as a task of the transport."""
        self._handlers[protocol] = handler
        # hivemind's class: the multiaddr package drops the path's first slash.
        address = Multiaddr(f"/unix{self._accept_path()}").to_bytes()
        try:
            await self._daemon.control.accept_at(address, protocol)
        except (Refusal, TimeoutError) as error:
            raise DaemonDied(f"p2pd does not accept a handler: {error}") from error

    def cut(self, peer: PeerId) -> None:
        """See `Ground.cut`."""
        for stream in [each for each in self._streams if each.peer == peer]:
            stream.close()

    def _accept_path(self) -> Path:
        return self._daemon.folder / "accept.sock"

    def _on_socket(self, socket: SocketStream) -> None:
        """The daemon hands us an inbound stream."""
        if not self._is_open or len(self._streams) >= MAX_STREAMS:
            log.warning("stream refused: num_streams=%d", len(self._streams))
            socket.close()
            return
        self._tasks.start(self._accept(socket), "stream-in")

    async def _accept(self, socket: SocketStream) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                peer_id, protocol = await read_stream_info(socket)
            peer = PeerId.parse(PeerID(peer_id).to_base58())
        except (DaemonDied, TimeoutError, ValueError) as error:
            log.debug("stream not accepted: error=%s", error)
            socket.close()
            return
        except BaseException:
            socket.close()
            raise
        if self._inbound[peer] >= MAX_STREAMS_OF_PEER:
            log.debug("stream refused: peer=%s protocol=%s", peer.short, protocol)
            socket.close()
            return
        self._inbound[peer] += 1
        stream = LibP2PStream(peer, socket, self._streams)
        try:
            await self._handlers[protocol](stream)
        except P2PNodeError as error:
            log.debug("stream ended: peer=%s error=%s", peer.short, error)
        finally:
            stream.close()
            self._inbound[peer] -= 1
            if not self._inbound[peer]:
                del self._inbound[peer]

    async def _watch(self) -> None:
        """When the daemon dies, fail what would wait for ever."""
        try:
            await self._daemon.wait_died()
        except DaemonDied as error:
            log.warning("p2pd died: error=%s", error)
            fail_calls(self.p2p)
