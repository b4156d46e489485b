"""What a node does with each message: the boundary between links and sessions.

A bug in one message must not stop the others: this is one of the three places that may catch
`Exception` (it logs it and ends that link).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from p2pnode.errors import (
    ComputeFailed,
    P2PNodeError,
    PeerError,
    PeerLost,
    PeerMisbehaved,
    PeerRefused,
)
from p2pnode.model.block import Block
from p2pnode.net.link import Link
from p2pnode.net.links import Links
from p2pnode.serving.admission import Admission
from p2pnode.serving.requests import Requests
from p2pnode.serving.session import Gap, HopSession, Job, Key, Output, unknown
from p2pnode.serving.worker import Outcome, Worker
from p2pnode.tasks import all_of
from p2pnode.wire.messages import (
    Close,
    Fault,
    Open,
    Opened,
    Refused,
    Reroute,
    Rerouted,
    Step,
)

log = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The numbers that a handler needs."""

    chunk_tokens: int
    session_idle_timeout_s: float


class Handler:
    """Sessions of one block. ``async with`` owns the tasks that open and reroute them."""

    def __init__(
        self,
        block: Block,
        worker: Worker,
        admission: Admission,
        limits: Limits,
        on_event: Callable[[str, HopSession], None],
    ) -> None:
        self.sessions: dict[Key, HopSession] = {}
        self._block = block
        self._worker = worker
        self._admission = admission
        self._limits = limits
        self._on_event = on_event
        self._requests = Requests()
        self._progress_due: set[Key] = set()
        self._links: Links

    async def __aenter__(self) -> Self:
        await self._requests.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for session in list(self.sessions.values()):
            self._free(session)
        await self._requests.__aexit__(kind, error, trace)

    async def run(self, links: Links) -> None:
        """Answer messages until cancelled; frees sessions whose client has gone silent."""
        self._links = links
        await all_of(self._worker.run(self._on_done), self._sweep())

    # --- events of links

    def on_message(self, link: Link, message: Any) -> None:
        """Dispatch (`LinkEvents`); PeerError ends the link."""
        try:
            self._dispatch(link, message)
        except P2PNodeError:
            raise
        except Exception as error:
            raise _bug(link, error) from error

    def on_lost(self, link: Link, error: PeerError) -> None:
        """A link has ended: free its client's sessions, tell the others' clients."""
        for session in list(self.sessions.values()):
            if session.client is link:
                self._free(session)
            elif session.next is link:
                self._reply(session.client, session.fault("unreachable", str(error), link.peer))

    def _dispatch(self, link: Link, message: Any) -> None:
        match message:
            case Step():
                self._step(link, message)
            case Open():
                self._requests.start(self._open(link, message), link)
            case Reroute():
                self._requests.start(self._reroute(link, message), link)
            case Close():
                self._close(link, message)
            case Fault():
                self._pass_on(link, message)
            case _:
                raise PeerMisbehaved(link.peer, f"sent a {type(message).__name__} to a node")

    # --- the life of a session

    async def _open(self, link: Link, message: Open) -> None:
        known: dict[str, Any] = {
            "session": message.session,
            "layer": message.layers.start,
            "epoch": message.epoch,
        }
        try:
            session = self._admit(link, message)
            self.sessions[session.key] = session
            self._on_event("session_opened", session)
            session.next = await self._next_link(message)
        except PeerRefused as refused:
            reason, retry_after_s = str(refused), refused.retry_after_s
            self._reply(link, Refused(**known, reason=reason, retry_after_s=retry_after_s))
        except PeerError as error:
            self._free(session)
            self._reply(link, session.fault("unreachable", str(error), blamed=message.next))
        else:
            if not session.is_closed:
                self._reply(link, Opened(**known))

    def _admit(self, link: Link, message: Open) -> HopSession:
        """Count before saying yes; raises PeerRefused."""
        key = (message.session, message.layers.start)
        existing = self.sessions.get(key)
        if existing is not None:
            if existing.client.peer != link.peer:
                raise PeerRefused(self._links.peer, "the session belongs to another client")
            self._free(existing)
        self._admission.check(message, self.sessions.values())
        part = self._block.part(message.layers)
        token_ids = message.token_ids
        ids = [] if token_ids is None else memoryview(token_ids.data).cast("B").cast("q").tolist()
        return HopSession(
            id=message.session,
            block=part,
            epoch=message.epoch,
            max_tokens=message.max_tokens,
            client=link,
            previous=message.previous,
            next=None,
            send_from=message.send_from,
            sampling=message.sampling,
            token_ids=ids,
            cache=part.new_cache(message.max_tokens),
            active_at=asyncio.get_running_loop().time(),
        )

    async def _next_link(self, message: Open | Reroute) -> Link | None:
        if message.next is None:
            return None
        return await self._links.connect(message.next, message.next_addresses)

    async def _reroute(self, link: Link, message: Reroute) -> None:
        session = self.sessions.get((message.session, message.layer))
        if session is None or session.client.peer != link.peer:
            return self._reply(link, unknown(message))
        try:
            next_link = await self._next_link(message)
        except PeerError as error:
            return self._reply(link, session.fault("unreachable", str(error), message.next))
        if session.is_closed or message.epoch <= session.epoch:
            return
        session.reroute(message, next_link, now=asyncio.get_running_loop().time())
        answer = Rerouted(
            session=session.id, layer=message.layer, epoch=session.epoch, position=session.position
        )
        self._reply(link, answer)
        self._send(session)

    def _step(self, link: Link, message: Step) -> None:
        session = self.sessions.get((message.session, message.layer))
        if session is None or not session.may_step(link.peer, message):
            self._reply(link, unknown(message))
            return
        try:
            self._admission.check_entry(link.peer, message, session)
            job = session.accept(message, link.peer, now=asyncio.get_running_loop().time())
        except Gap:
            what = f"a step at {message.position}, only {session.accepted} tokens are held"
            self._reply(session.client, session.fault("gap", what, session.previous))
        except PeerMisbehaved as error:
            if link.peer == session.client.peer:
                raise
            # Its client may have contrived it, and the link is not its alone.
            self._reply(session.client, session.fault("input", str(error), blamed=link.peer))
        else:
            if job is not None:
                self._worker.submit(job)

    def _on_done(self, job: Job, outcome: Outcome, queue_s: float, compute_s: float) -> None:
        session = job.session
        session.num_steps += 1
        session.queue_s += queue_s
        session.compute_s += compute_s
        if isinstance(outcome, ComputeFailed):
            self._failed(job, outcome)
        elif session.finish(job, outcome):
            self._send(session, outcome)
            if session.key not in self._progress_due:
                self._progress_due.add(session.key)
                loop = asyncio.get_running_loop()
                loop.call_later(PROGRESS_INTERVAL_S, self._report, session)

    def _send(self, session: HopSession, output: Output | None = None) -> None:
        """To the next hop whatever it has not been sent, or to the client what it waits for."""
        if not session.ends_chain:
            if session.next is not None and session.next.is_open:
                for step in session.unsent(self._limits.chunk_tokens):
                    self._reply(session.next, step)
        elif output is not None and (output.token_ids or output.hidden is not None):
            self._reply(session.client, session.result(output))

    def _failed(self, job: Job, error: ComputeFailed) -> None:
        session = job.session
        if job.is_void:
            return
        log.warning("step failed: layers=%s error=%s", session.layers, error)
        is_input = str(error).startswith("input")
        kind, blamed = ("input", session.previous) if is_input else ("compute", None)
        self._reply(session.client, session.fault(kind, str(error), blamed))

    def _report(self, session: HopSession) -> None:
        self._progress_due.discard(session.key)
        if not session.is_closed:
            self._reply(session.client, session.progress())

    def _close(self, link: Link, message: Close) -> None:
        session = self.sessions.get((message.session, message.layer))
        if session is not None and session.client.peer == link.peer:
            self._free(session)
            self._reply(link, session.closed())

    def _pass_on(self, link: Link, message: Fault) -> None:
        """Our next hop cannot go on: its client may not be able to hear it from there."""
        for session in self.sessions.values():
            ours = session.id == message.session and session.layers.stop == message.layer
            if ours and session.next is link and session.epoch == message.epoch:
                self._reply(session.client, message)

    def _free(self, session: HopSession) -> None:
        session.is_closed = True
        if self.sessions.get(session.key) is session:
            del self.sessions[session.key]
            self._on_event("session_closed", session)

    def _reply(self, link: Link, message: object) -> None:
        try:
            link.send(message)
        except PeerLost as error:  # `on_lost` frees what hangs on it
            log.debug("not sent: peer=%s error=%s", link.peer.short, error)

    async def _sweep(self) -> None:
        """Free sessions whose client is silent for too long: it may be frozen, not gone."""
        loop = asyncio.get_running_loop()
        idle_s = self._limits.session_idle_timeout_s
        while True:
            await asyncio.sleep(idle_s / 4)
            for session in list(self.sessions.values()):
                if loop.time() - session.active_at > idle_s:
                    self._reply(session.client, session.fault("closed", f"idle for {idle_s:g} s"))
                    self._free(session)


def _bug(link: Link, error: Exception) -> PeerMisbehaved:
    """Log what should not have happened; that link ends, all else goes on."""
    log.error("bug: peer=%s", link.peer.short, exc_info=error)
    return PeerMisbehaved(link.peer, "sent a message that broke us")
