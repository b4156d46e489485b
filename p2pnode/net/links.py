"""All links of this process: one per (peer, traffic class), opened once, shared by all sessions."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Set
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

from p2pnode.errors import P2PNodeError, PeerError, PeerLost, PeerMisbehaved, PeerTimeout
from p2pnode.net.doors import Doors
from p2pnode.net.link import Link, LinkEvents
from p2pnode.net.protection import Protection
from p2pnode.net.sweeping import condemned
from p2pnode.net.transport import ByteStream, Transport
from p2pnode.net.volume import Volume
from p2pnode.tasks import Tasks
from p2pnode.types import PeerId
from p2pnode.wire.messages import CHAIN, CONTROL
from p2pnode.wire.padding import padding

log = logging.getLogger(__name__)

GREET_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 0.5
MAX_INBOUND = 1024
MAX_INBOUND_PER_PEER = 8
"""Of one traffic class, those that have not greeted yet included."""
SWEEP_INTERVAL_S = 0.5
_Open = Callable[[PeerId], Awaitable[Link]]


class Links:
    """Opens, accepts, monitors and closes links. ``async with`` owns their tasks.

    A peer that we connected to for a session is watched by a heartbeat on its control link: when
    that fails, all links to it end with a PeerTimeout. A peer that connected to us for one must
    let us hear of it; it runs that heartbeat. ``control_events`` is told what happens on control
    links, ``events`` the rest; without the former, ``events`` is told all.
    """

    def __init__(
        self,
        transport: Transport,
        events: LinkEvents,
        *,
        software: str,
        connect_timeout_s: float,
        heartbeat: tuple[float, float],
        control_events: LinkEvents | None = None,
        lossy: str = "",
        up_bytes_per_s: float = 0.0,
        pads: bool = False,
    ) -> None:
        """lossy: the coding of hidden states; pads: fill the window of chain links we open."""
        self._transport = transport
        self._events = {CHAIN: events, CONTROL: control_events or events}
        self._software = software
        self._connect_timeout_s = connect_timeout_s
        self._heartbeat = heartbeat
        self._lossy = lossy
        self._up_bytes_per_s = up_bytes_per_s
        self._pads = pads
        self.volumes = {CHAIN: Volume(), CONTROL: Volume()}
        """Of all links, also those that have ended, by traffic class."""
        self._links: dict[tuple[PeerId, str], list[Link]] = {}
        self._doors = Doors()
        self._shunned: dict[PeerId, float] = {}
        self._tasks = Tasks()
        self._inbound: Counter[tuple[PeerId, str]] = Counter()
        self._is_closing = False
        self._protection = Protection(transport)

    @property
    def peer(self) -> PeerId:
        """Our own id."""
        return self._transport.peer

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def serve(self) -> None:
        """Accept links of both traffic classes from anyone."""
        self._tasks.start(self._sweep(), name="links-sweep")
        self._tasks.start(self._protection.run(), name="links-protection")
        for traffic in (CHAIN, CONTROL):
            await self._transport.serve(traffic, functools.partial(self._accept, traffic))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_closing = True
        await self._close(*(link for links in self._links.values() for link in links))
        await self._tasks.__aexit__(kind, error, trace)

    def get(self, peer: PeerId, traffic: str = CHAIN) -> Link | None:
        """A live link to that peer, whoever opened it."""
        return next(iter(self._links.get((peer, traffic), ())), None)

    async def connect(self, peer: PeerId, addresses: tuple[str, ...]) -> Link:
        """The chain link to a peer, opened when there is none; its control link is watched.

        Raises PeerLost, PeerTimeout or PeerMisbehaved. Many callers at once open one link.
        """
        async with self._doors.through(peer):
            link, control = self.get(peer), self.get(peer, CONTROL)
            if link is not None and control is not None:
                control.watch(*self._heartbeat)
                return link
            async with self._deadline(peer):
                return await self._reach(peer, addresses, self._open_watched)

    async def control(self, peer: PeerId, addresses: tuple[str, ...]) -> Link:
        """The control link to a peer, opened when there is none; it is not watched.

        Raises PeerLost, PeerTimeout or PeerMisbehaved.
        """
        async with self._doors.through(peer):
            link = self.get(peer, CONTROL)
            if link is not None:
                return link
            async with self._deadline(peer):
                return await self._reach(
                    peer, addresses, functools.partial(self._open, traffic=CONTROL)
                )

    async def release(self, peer: PeerId) -> None:
        """End the control link that we opened to a peer, unless a session uses the peer."""
        link = self.get(peer, CONTROL)
        if link is None or link.is_inbound or self.get(peer) is not None:
            return
        await self._close(link)

    async def _close(self, *links: Link) -> None:
        """End links well where their peers can take it, all of them in any case."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                for link in links:
                    with contextlib.suppress(PeerError):  # it is gone already
                        await link.finish()
        except TimeoutError:
            log.debug("links closed without END: num_links=%d", len(links))
        for link in links:
            link.end(PeerLost(link.peer, "we closed the link"))

    def shun(self, peer: PeerId, for_s: float) -> None:
        """Accept no links from that peer for a while; those that it has are left alone."""
        now = asyncio.get_running_loop().time()
        self._shunned = {other: until for other, until in self._shunned.items() if until > now}
        self._shunned[peer] = now + for_s

    def protect(self, peers: Set[PeerId]) -> None:
        """Keep the connections to these, and no others, when there are too many."""
        self._protection.set(peers)

    @asynccontextmanager
    async def _deadline(self, peer: PeerId) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                yield
        except (TimeoutError, PeerTimeout) as error:
            what = f"did not answer within {self._connect_timeout_s:g} s"
            raise PeerTimeout(peer, what) from error

    async def _reach(self, peer: PeerId, addresses: tuple[str, ...], open_link: _Open) -> Link:
        """Connect and open. Tried twice: the connection may be to one that has died and is back."""
        await self._transport.connect(peer, addresses)
        try:
            return await open_link(peer)
        except PeerLost as error:
            log.debug("connecting anew: peer=%s error=%s", peer.short, error)
        await self._transport.connect(peer, addresses)
        return await open_link(peer)

    async def _open_watched(self, peer: PeerId) -> Link:
        """The chain link, and the heartbeat on the control link."""
        (await self._open(peer, CONTROL)).watch(*self._heartbeat)
        return await self._open(peer, CHAIN)

    async def _open(self, peer: PeerId, traffic: str) -> Link:
        existing = self.get(peer, traffic)
        if existing is not None:
            return existing
        link = self._link(await self._transport.open_stream(peer, traffic), traffic)
        try:
            await link.greet(self._software)
        except BaseException:
            link.stream.close()
            raise
        self._start(link)
        if self._pads and traffic == CHAIN:
            link.send(padding())
        return link

    @property
    def up_bytes_per_s(self) -> float:
        """Our uplink: as announced, else the most that a link has been seen to take; 0: unknown."""
        links = (link for links in self._links.values() for link in links)
        seen = (link.uplink.measured_bytes_per_s for link in links)
        return self._up_bytes_per_s or max(seen, default=0.0)

    def _link(self, stream: ByteStream, traffic: str) -> Link:
        link = Link(stream, traffic, self)
        link.agree_on(self._lossy)
        link.volume = self.volumes[traffic]
        link.uplink.announced_bytes_per_s = self._up_bytes_per_s
        return link

    def _start(self, link: Link) -> asyncio.Task[None]:
        if self._is_closing:
            link.stream.close()
            raise PeerLost(link.peer, "we close our links")
        self._links.setdefault((link.peer, link.traffic), []).append(link)
        return self._tasks.start(link.run(), name=f"link-{link.peer.short}")

    async def _accept(self, traffic: str, stream: ByteStream) -> None:
        key = (stream.peer, traffic)
        if self._shunned.get(stream.peer, 0.0) > asyncio.get_running_loop().time():
            return
        if self._inbound.total() >= MAX_INBOUND or self._inbound[key] >= MAX_INBOUND_PER_PEER:
            log.warning("too many links, one refused: peer=%s", stream.peer.short)
            return
        link = self._link(stream, traffic)
        link.is_inbound = True
        self._inbound[key] += 1
        try:
            async with asyncio.timeout(GREET_TIMEOUT_S):
                await link.greet(self._software)
            await asyncio.wait([self._start(link)])
        except (TimeoutError, PeerError) as error:
            log.debug("link refused: peer=%s error=%s", stream.peer.short, error)
        finally:
            self._inbound[key] -= 1
            self._inbound += Counter()  # forgets who has none

    def on_message(self, link: Link, message: object) -> None:
        """Pass a message on (`LinkEvents`)."""
        self._events[link.traffic].on_message(link, message)

    def on_lost(self, link: Link, error: PeerError) -> None:
        """Forget the link, then pass the event on (`LinkEvents`)."""
        self._forget(link, error)
        self._events[link.traffic].on_lost(link, error)

    def _forget(self, link: Link, error: PeerError) -> None:
        peer = link.peer
        links = self._links.get((peer, link.traffic), [])
        if link in links:
            links.remove(link)
        if not links:
            self._links.pop((peer, link.traffic), None)
        if link.traffic == CONTROL:
            if isinstance(error, PeerTimeout):
                self._end_all(peer, error)
            elif link.is_watched and self._ours(peer) and not self._is_closing:
                self._tasks.start(self._watch_again(peer), name=f"watch-{peer.short}")

    def _ours(self, peer: PeerId) -> list[Link]:
        """The chain links that we opened to a peer."""
        return [link for link in self._links.get((peer, CHAIN), ()) if not link.is_inbound]

    def _end_all(self, peer: PeerId, error: PeerError) -> None:
        for traffic in (CHAIN, CONTROL):
            for link in list(self._links.get((peer, traffic), ())):
                link.end(error)

    async def _watch_again(self, peer: PeerId) -> None:
        """The control link of a session's peer went, the chain link did not: open another."""
        try:
            async with self._doors.through(peer):
                async with self._deadline(peer):
                    control = await self._open(peer, CONTROL)
                control.watch(*self._heartbeat)
        except P2PNodeError as error:
            kind = PeerMisbehaved if isinstance(error, PeerMisbehaved) else PeerLost
            for link in self._ours(peer):
                link.end(kind(peer, f"its control link is gone ({error})"))

    async def _sweep(self) -> None:
        """End what nobody uses, or somebody misuses (`net.sweeping`)."""
        clock = asyncio.get_running_loop().time
        while True:
            due_at = clock() + SWEEP_INTERVAL_S
            await asyncio.sleep(SWEEP_INTERVAL_S)
            if clock() - due_at < SWEEP_INTERVAL_S:  # else we were stalled: first read what came
                for link, error in list(condemned(self._links, clock())):
                    link.end(error)
