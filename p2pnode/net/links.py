"""All links of this process: one per (peer, traffic class), opened once, shared by all sessions."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import Counter
from types import TracebackType
from typing import Self

from p2pnode.errors import PeerError, PeerLost, PeerTimeout
from p2pnode.net.link import Link, LinkEvents
from p2pnode.net.transport import ByteStream, Transport
from p2pnode.tasks import Tasks
from p2pnode.types import PeerId
from p2pnode.wire.messages import CHAIN, CONTROL

log = logging.getLogger(__name__)

GREET_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 0.5
MAX_INBOUND = 1024
MAX_INBOUND_PER_PEER = 8
"""Of one traffic class, those that have not greeted yet included."""


class Links:
    """Opens, accepts, monitors and closes links. ``async with`` owns their tasks.

    A peer that we connected to is watched by a heartbeat on its control link: when that fails,
    all links to it end with a PeerTimeout.
    """

    def __init__(
        self,
        transport: Transport,
        events: LinkEvents,
        *,
        software: str,
        connect_timeout_s: float,
        heartbeat: tuple[float, float],
    ) -> None:
        self._transport = transport
        self._events = events
        self._software = software
        self._connect_timeout_s = connect_timeout_s
        self._heartbeat = heartbeat
        self._links: dict[tuple[PeerId, str], list[Link]] = {}
        self._opening: dict[PeerId, asyncio.Lock] = {}
        self._tasks = Tasks()
        self._inbound: Counter[tuple[PeerId, str]] = Counter()

    @property
    def peer(self) -> PeerId:
        """Our own id."""
        return self._transport.peer

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def serve(self) -> None:
        """Accept links of both traffic classes from anyone."""
        for traffic in (CHAIN, CONTROL):
            await self._transport.serve(traffic, functools.partial(self._accept, traffic))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        links = [link for links in self._links.values() for link in links]
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                for link in links:
                    await self._finish(link)
        except TimeoutError:
            log.debug("links closed without END: num_links=%d", len(links))
        for link in links:
            link.end(PeerLost(link.peer, "we closed the link"))
        await self._tasks.__aexit__(kind, error, trace)

    def get(self, peer: PeerId, traffic: str = CHAIN) -> Link | None:
        """A live link to that peer, whoever opened it."""
        links = self._links.get((peer, traffic))
        return links[0] if links else None

    async def connect(self, peer: PeerId, addresses: tuple[str, ...]) -> Link:
        """The chain link to a peer, opened when there is none; its control link is watched.

        Raises PeerLost, PeerTimeout or PeerMisbehaved. Many callers at once open one link.
        """
        async with self._opening.setdefault(peer, asyncio.Lock()):
            link = self.get(peer)
            if link is not None and self.get(peer, CONTROL):
                return link
            try:
                async with asyncio.timeout(self._connect_timeout_s):
                    await self._transport.connect(peer, addresses)
                    await self._open(peer, CONTROL)
                    return await self._open(peer, CHAIN)
            except TimeoutError as error:
                what = f"did not answer within {self._connect_timeout_s:g} s"
                raise PeerTimeout(peer, what) from error

    async def _open(self, peer: PeerId, traffic: str) -> Link:
        existing = self.get(peer, traffic)
        if existing is not None:
            return existing
        link = Link(await self._transport.open_stream(peer, traffic), traffic, self)
        try:
            await link.greet(self._software)
        except BaseException:
            link.stream.close()
            raise
        self._start(link, self._heartbeat if traffic == CONTROL else None)
        return link

    def _start(self, link: Link, heartbeat: tuple[float, float] | None) -> asyncio.Task[None]:
        self._links.setdefault((link.peer, link.traffic), []).append(link)
        return self._tasks.start(link.run(heartbeat), name=f"link-{link.peer.short}")

    async def _accept(self, traffic: str, stream: ByteStream) -> None:
        key = (stream.peer, traffic)
        if self._inbound.total() >= MAX_INBOUND or self._inbound[key] >= MAX_INBOUND_PER_PEER:
            log.warning("too many links, one refused: peer=%s", stream.peer.short)
            return
        link = Link(stream, traffic, self)
        self._inbound[key] += 1
        try:
            async with asyncio.timeout(GREET_TIMEOUT_S):
                await link.greet(self._software)
            await asyncio.wait([self._start(link, None)])
        except (TimeoutError, PeerError) as error:
            log.debug("link refused: peer=%s error=%s", stream.peer.short, error)
        finally:
            self._inbound[key] -= 1
            self._inbound += Counter()  # forgets who has none

    async def _finish(self, link: Link) -> None:
        try:
            await link.finish()
        except PeerError as error:
            log.debug("link not ended well: peer=%s error=%s", link.peer.short, error)

    def on_message(self, link: Link, message: object) -> None:
        """Pass a message on (`LinkEvents`)."""
        self._events.on_message(link, message)

    def on_lost(self, link: Link, error: PeerError) -> None:
        """Forget the link, then pass the event on (`LinkEvents`)."""
        self._forget(link, error)
        self._events.on_lost(link, error)

    def _forget(self, link: Link, error: PeerError) -> None:
        links = self._links.get((link.peer, link.traffic), [])
        if link in links:
            links.remove(link)
        if not links:
            self._links.pop((link.peer, link.traffic), None)
        if link.traffic == CONTROL and isinstance(error, PeerTimeout):
            for other in list(self._links.get((link.peer, CHAIN), ())):
                other.end(error)
        lock = self._opening.get(link.peer)
        if lock is not None and not lock.locked() and not self._links.get((link.peer, CHAIN)):
            del self._opening[link.peer]
