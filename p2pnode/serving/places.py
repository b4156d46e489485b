"""Who has a place on this node: opening, rerouting and freeing sessions, and leaving.

A place is freed when its client says so, is gone, is silent for too long, or when we leave.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Set
from typing import Any

from p2pnode.errors import BadConstraint, ModelFilesError, PeerError, PeerLost, PeerRefused
from p2pnode.model.block import Block
from p2pnode.model.chooser import Chooser
from p2pnode.model.constraint import Constraints
from p2pnode.model.mean import Mean
from p2pnode.net.link import Link
from p2pnode.net.links import Links
from p2pnode.serving import replies
from p2pnode.serving.admission import RETRY_AFTER_S, Admission
from p2pnode.serving.journal import ids_of
from p2pnode.serving.limits import Limits
from p2pnode.serving.prefixes import Prefixes
from p2pnode.serving.quotas import Quotas
from p2pnode.serving.ring import Ring, reach
from p2pnode.serving.session import HopSession, Key
from p2pnode.serving.worker import Worker
from p2pnode.types import PeerId
from p2pnode.wire.messages import Close, Draining, Open, Opened, Refused, Reroute, Rerouted, Shadow

log = logging.getLogger(__name__)

OnEvent = Callable[[str, HopSession], None]


class Places:
    """The sessions of one block."""

    def __init__(
        self,
        block: Block,
        admission: Admission,
        limits: Limits,
        on_event: OnEvent,
        worker: Worker,
        quotas: Quotas | None,
    ) -> None:
        self.sessions: dict[Key, HopSession] = {}
        self.is_draining = False
        self.links: Links
        self.protect: Callable[[Set[PeerId]], None] = lambda peers: None
        """Told whose connections sessions need (`Links.protect`)."""
        self._block = block
        self._admission = admission
        self._limits = limits
        self._on_event = on_event
        self._worker = worker
        self._quotas = quotas
        self._prefixes = Prefixes()
        self._journal_room = 0
        """Bytes that journals may still grow by before all have to be counted."""
        self._constraints = Constraints(lambda: block.folder)
        self._all_gone = asyncio.Event()

    async def open(self, link: Link, message: Open) -> None:
        """Hold a place, connect to the next hop, and say so; or an honest no."""
        known: dict[str, Any] = {
            "session": message.session,
            "layer": message.layers.start,
            "epoch": message.epoch,
        }
        session = None
        try:
            session = self._admit(link, message)
            self.sessions[session.key] = session
            self._on_event("session_opened", session)
            session.chooser = await self._chooser(message)
            session.next = await self.next_link(message)
            await self._begin(session, message.pages)
        except PeerRefused as refused:
            if session is not None:
                self.free(session)
            is_ours = refused.peer == self.links.peer  # then the client knows who says so
            reason = refused.what if is_ours else str(refused)
            reply(link, Refused(**known, reason=reason, retry_after_s=refused.retry_after_s))
        except PeerError as error:
            if session is not None:
                self.free(session)
                reply(link, replies.fault(session, "unreachable", str(error), message.next))
        else:
            self._protect()
            if not session.is_closed:
                reply(link, Opened(**known, position=session.position))
            await reach(session, self.links, message.ring_addresses)

    def _admit(self, link: Link, message: Open) -> HopSession:
        """Count before saying yes; raises PeerRefused."""
        if self.is_draining:
            raise PeerRefused(self.links.peer, "is leaving")
        key = (message.session, message.layers.start)
        existing = self.sessions.get(key)
        if existing is not None:
            if existing.client.peer != link.peer:
                raise PeerRefused(self.links.peer, "the session belongs to another client")
            self.free(existing)
        sessions = self.sessions.values()
        self._prefixes.shrink(self._admission.check(message, link.peer, sessions))
        part = self._block.part(message.layers)
        try:
            cache = part.new_cache(message.max_tokens)
        except MemoryError as error:  # others have taken what was free when we counted
            self._prefixes.shrink(0)
            raise PeerRefused(self.links.peer, "is out of memory", RETRY_AFTER_S) from error
        now = asyncio.get_running_loop().time()
        if self._quotas is not None:
            self._quotas.take(link.peer, message.max_tokens, sessions, now)
        return HopSession(
            id=message.session,
            block=part,
            epoch=message.epoch,
            max_tokens=message.max_tokens,
            client=link,
            previous=message.previous,
            next=None,
            send_from=message.send_from,
            token_ids=ids_of(message.token_ids),
            cache=cache,
            mean=Mean() if message.pools else None,
            ring=Ring(message.ring) if message.ring else None,
            active_at=now,
        )

    async def _chooser(self, message: Open) -> Chooser | None:
        """What chooses the session's tokens; raises PeerRefused for a constraint that it cannot."""
        sampling, constraint = message.sampling, None
        if sampling is None:
            return None
        if sampling.constraint:
            try:
                constraint = await self._constraints.compile(sampling.constraint)
            except (BadConstraint, ModelFilesError) as error:
                raise PeerRefused(self.links.peer, str(error)) from error
        return Chooser(sampling, num_prompt=message.num_prompt, constraint=constraint)

    async def _begin(self, session: HopSession, pages: bytes) -> None:
        """Take over what an earlier session of the client has computed of these pages."""
        now = asyncio.get_running_loop().time()
        found = self._prefixes.find(session.client.peer, session.layers, pages, now=now)
        if found is None:
            return
        kept, num_tokens = found
        num_tokens = min(num_tokens, session.max_tokens)
        await self._worker.do(lambda: session.cache.copy_from(kept.cache, num_tokens))
        session.begin_at(num_tokens, kept.journal)
        self.trim(session, session.journal.num_bytes)

    async def next_link(self, message: Open | Reroute | Shadow) -> Link | None:
        """The link to the next hop that a message names; raises PeerError."""
        if message.next is None:
            return None
        return await self.links.connect(message.next, message.next_addresses)

    async def reroute(self, link: Link, message: Reroute) -> HopSession | None:
        """Adopt a new configuration and say so; None when that was not possible."""
        session = self.of(link, message.session, message.layer)
        if session is None:
            reply(link, replies.unknown(message))
            return None
        try:
            next_link = await self.next_link(message)
        except PeerError as error:
            fault = replies.fault(session, "unreachable", str(error), message.next)
            reply(link, dataclasses.replace(fault, epoch=message.epoch))
            return None
        if session.is_closed or message.epoch <= session.epoch:
            return None
        session.reroute(message, next_link, now=asyncio.get_running_loop().time())
        self._protect()
        rerouted = Rerouted(
            session=session.id,
            layer=message.layer,
            epoch=session.epoch,
            position=session.position,
            replays_from=session.replays_from,
        )
        reply(link, rerouted)
        return session

    def of(self, link: Link, session_id: bytes, layer: int) -> HopSession | None:
        """That session, if this link's peer is its client."""
        session = self.sessions.get((session_id, layer))
        return session if session is not None and session.client.peer == link.peer else None

    def close(self, link: Link, message: Close) -> None:
        """Free everything now, at the client's word."""
        session = self.of(link, message.session, message.layer)
        if session is not None:
            self.free(session)
            if message.pages:
                held, now = self._admission.bytes_of(session), asyncio.get_running_loop().time()
                self._prefixes.keep(session, message.pages, num_bytes=held, now=now)
            reply(link, replies.closed(session))

    def close_thread(self) -> None:
        """Compile no more constraints."""
        self._constraints.close()

    def free_memory(self) -> None:
        """Forget what is only kept for later."""
        self._prefixes.shrink(0)

    def free(self, session: HopSession) -> None:
        """Forget a session; what is running of it becomes void."""
        session.is_closed = True
        if self.sessions.get(session.key) is session:
            del self.sessions[session.key]
            if self._quotas is not None:
                self._quotas.give_back(session, asyncio.get_running_loop().time())
            self._on_event("session_closed", session)
            self._protect()
        if not self.sessions:
            self._all_gone.set()

    def _protect(self) -> None:
        """The connections that sessions need outlast those of a crowd."""
        peers: set[PeerId | None] = set()
        for session in self.sessions.values():
            following = session.next.peer if session.next is not None else None
            ring = session.ring.peer if session.ring is not None else None
            peers |= {session.client.peer, session.previous, following, ring}
        self.protect({peer for peer in peers if peer is not None})

    def on_lost(self, link: Link, error: PeerError) -> None:
        """A link has ended: free its client's sessions, tell the others' clients."""
        for session in list(self.sessions.values()):
            if session.client is link:
                self.free(session)
                continue
            if session.next is link:
                fault = replies.fault(session, "unreachable", str(error), link.peer)
                reply(session.client, fault)
            if session.shadowing is not None and session.shadowing.link is link:
                session.shadowing = None

    def trim(self, session: HopSession, grown_bytes: int) -> None:
        """Keep the journals within their bounds, after one has grown; the largest gives way."""
        limits = self._limits
        session.journal.trim(limits.journal_bytes)
        self._journal_room -= grown_bytes
        if self._journal_room >= 0:
            return
        held = sum(each.journal.num_bytes for each in self.sessions.values())
        self._journal_room = limits.journals_bytes - held
        if self._journal_room < 0:
            largest = max(self.sessions.values(), key=lambda each: each.journal.num_bytes)
            largest.journal.trim(max(0, largest.journal.num_bytes + self._journal_room))

    async def drain(self, within_s: float) -> None:
        """Leave: refuse new sessions, ask clients to move theirs, wait until all have gone.

        Steps are served meanwhile. Returns after ``within_s`` at the latest.
        """
        self.is_draining = True
        if not self.sessions:
            return
        self._all_gone.clear()
        log.info("draining: sessions=%d within_s=%.0f", len(self.sessions), within_s)
        for link in {session.client for session in self.sessions.values()}:
            reply(link, Draining(within_s=within_s))
        try:
            async with asyncio.timeout(within_s):
                await self._all_gone.wait()
        except TimeoutError:
            log.warning("left with sessions: sessions=%d", len(self.sessions))

    async def sweep(self) -> None:
        """Free sessions whose client is silent for too long: it may be frozen, not gone."""
        loop = asyncio.get_running_loop()
        idle_s = self._limits.session_idle_timeout_s
        while True:
            await asyncio.sleep(idle_s / 4)
            self._prefixes.expire(loop.time())
            for session in list(self.sessions.values()):
                if loop.time() - session.active_at > idle_s:
                    fault = replies.fault(session, "closed", f"idle for {idle_s:g} s")
                    reply(session.client, fault)
                    self.free(session)


def reply(link: Link, message: object) -> None:
    """Send, if the link still can; what hangs on a lost link is freed by `Places.on_lost`."""
    try:
        link.send(message)
    except PeerLost as error:
        log.debug("not sent: peer=%s error=%s", link.peer.short, error)
