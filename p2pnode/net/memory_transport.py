"""One peer's place on a `MemoryNetwork`."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from p2pnode.errors import DaemonDied, P2PNodeError, PeerForeign, PeerLost, PeerTimeout
from p2pnode.net.memory_stream import MemoryStream
from p2pnode.net.transport import FOREIGN, ByteStream, StreamHandler
from p2pnode.tasks import Tasks
from p2pnode.types import PeerId

if TYPE_CHECKING:
    from p2pnode.net.memory import MemoryNetwork

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 3.0
CONNECT_ROUND_TRIPS = 3
"""TCP, Noise and yamux each take one."""


class MemoryTransport:
    """`transport.Transport` in memory; made by `MemoryNetwork.transport`."""

    def __init__(self, network: MemoryNetwork, peer: PeerId, number: int) -> None:
        self.p2p: Any = None
        self.protected: set[PeerId] = set()
        self._network = network
        self._peer = peer
        self._address = f"/memory/{number}/p2p/{peer}"
        self._handlers: dict[str, StreamHandler] = {}
        self._tasks = Tasks()
        self._running: set[asyncio.Task[None]] = set()
        self._is_open = False
        self._died = asyncio.Event()

    @property
    def peer(self) -> PeerId:
        """Our own id."""
        return self._peer

    @property
    def addresses(self) -> tuple[str, ...]:
        """The one address under which others reach us."""
        return (self._address,)

    async def __aenter__(self) -> Self:
        if self._peer in self._network.transports:
            raise ValueError(f"peer {self._peer.short} is alive already")
        await self._tasks.__aenter__()
        self._network.transports[self._peer] = self
        self._is_open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(is_killed=False)
        # The group would wrap what the caller's block raised: it is told of cancellation only.
        if isinstance(error, asyncio.CancelledError):
            await self._tasks.__aexit__(kind, error, trace)
        else:
            await self._tasks.__aexit__(None, None, None)

    def die(self) -> None:
        """Be killed; `MemoryNetwork.kill` calls it."""
        self._end(is_killed=True)
        self._died.set()

    def _end(self, *, is_killed: bool) -> None:
        if self._is_open:
            self._is_open = False
            self._network.leave(self._peer, is_killed=is_killed)
            for task in self._running:
                task.cancel()

    async def connect(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """Dial; raises PeerLost (dead, not there) or PeerTimeout (silent). No-op when connected."""
        self._check_open()
        await self._network.until_thawed(self._peer)
        if self._network.are_connected(self._peer, peer):
            return
        for address in addresses:
            named = address.rpartition("/p2p/")[2] if "/p2p/" in address else peer
            if named != peer:
                raise PeerLost(peer, f"address {address} is another peer's")
        for _ in range(CONNECT_ROUND_TRIPS):
            await self._travel(peer, there=True)
            there = self._network.transports.get(peer)
            await self._travel(peer, there=False)
            if self._network.is_hidden(peer):
                await asyncio.sleep(CONNECT_TIMEOUT_S)
                raise PeerTimeout(peer, f"did not answer within {CONNECT_TIMEOUT_S:g} s")
            if there is None or not _names(addresses, there):
                raise PeerLost(peer, "cannot be reached (connection refused)")
        if self._network.transports.get(peer) is not there:
            raise PeerLost(peer, "cannot be reached (it died while we dialled)")
        self._network.connect(self._peer, peer)

    def listens_at(self) -> tuple[str, ...]:
        """See `Ground.listens_at`."""
        return self.addresses

    async def observed(self) -> dict[PeerId, tuple[str, ...]]:
        """See `Ground.observed`."""
        self._check_open()
        await self._network.until_thawed(self._peer)
        living = self._network.transports
        connected = self._network.connected_to(self._peer)
        return {peer: (_host(living[peer]),) for peer in connected if peer in living}

    def may_ask(self, peer: PeerId) -> bool:
        """See `Ground.may_ask`."""
        return True

    async def answers(self, address: str) -> bool:
        """See `Ground.answers`."""
        found = [there for there in self._network.transports.values() if _names((address,), there)]
        try:
            for there in found:
                await self._travel(there.peer, there=True)
                await self._travel(there.peer, there=False)
        except PeerTimeout:
            return False
        return any(not self._network.is_hidden(there.peer) for there in found)

    async def open_stream(self, peer: PeerId, protocol: str) -> ByteStream:
        """Open a stream to a connected peer; raises PeerLost or PeerTimeout."""
        self._check_open()
        await self._network.until_thawed(self._peer)
        if not self._network.are_connected(self._peer, peer):
            raise PeerLost(peer, "is not connected")
        await self._travel(peer, there=True)
        if self._network.is_stale(self._peer, peer):
            await self._travel(peer, there=False)
            self._network.disconnect(self._peer, peer)
            raise PeerLost(peer, "the connection is to one that has died")
        there = self._network.transports.get(peer)
        if there is None or protocol not in there._handlers:
            await self._travel(peer, there=False)
            if there is None:
                raise PeerLost(peer, "is gone")
            raise PeerForeign(peer, f"{FOREIGN} ({protocol})")
        self._check_open()
        stream = self._network.open_pair(self._peer, peer, protocol)
        try:
            await self._travel(peer, there=False)
        except BaseException:
            stream.close()
            raise
        return stream

    def cut(self, peer: PeerId) -> None:
        """See `Ground.cut`."""
        self._network.cut(self._peer, peer)

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Answer inbound streams of this protocol."""
        self._check_open()
        self._handlers[protocol] = handler

    async def protect(self, peer: PeerId, is_protected: bool) -> None:
        """See `transport.Transport.protect`; nothing is closed here because there is too much."""
        if is_protected:
            self.protected.add(peer)
        else:
            self.protected.discard(peer)

    async def wait_closed(self) -> None:
        """Return never; raises DaemonDied when we were killed."""
        await self._died.wait()
        raise DaemonDied("the in-memory daemon was killed")

    def accept(self, stream: MemoryStream) -> None:
        """A stream was opened to us; `MemoryNetwork` calls it."""
        name = f"stream-from-{stream.peer.short}"
        task = self._tasks.start(self._serve(stream), name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, stream: MemoryStream) -> None:
        try:
            await self._network.until_thawed(self._peer)
            await self._handlers[stream.protocol](stream)
        except P2PNodeError as error:
            log.debug("stream ended: peer=%s error=%s", stream.peer.short, error)
        finally:
            stream.close()

    async def _travel(self, peer: PeerId, *, there: bool) -> None:
        """Wait as a packet does on its way there, or back; raises PeerTimeout in a black hole."""
        ends = (self._peer, peer) if there else (peer, self._peer)
        await asyncio.sleep(self._network.delay_s(*ends))
        if self._network.is_silent(*ends):
            await asyncio.sleep(CONNECT_TIMEOUT_S)
            raise PeerTimeout(peer, f"did not answer within {CONNECT_TIMEOUT_S:g} s")
        self._check_open()

    def _check_open(self) -> None:
        if not self._is_open:
            raise DaemonDied("the in-memory daemon does not run")


def _host(transport: MemoryTransport) -> str:
    (own,) = transport.addresses
    return own.partition("/p2p/")[0]


def _names(addresses: tuple[str, ...], transport: MemoryTransport) -> bool:
    (own,) = transport.addresses
    return any(address in (own, own.partition("/p2p/")[0]) for address in addresses)
