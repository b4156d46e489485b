"""What a node does with each message: the boundary between links and sessions.

A bug in one message must not stop the others: this is one of the three places that may catch
`Exception` (it logs it and ends that link).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from p2pnode.errors import ComputeFailed, P2PNodeError, PeerError, PeerMisbehaved
from p2pnode.model.block import Block
from p2pnode.model.constraint import CAUSE
from p2pnode.net.link import Link
from p2pnode.net.links import Links
from p2pnode.serving import replies
from p2pnode.serving.admission import Admission
from p2pnode.serving.job import Job, Output
from p2pnode.serving.limits import Limits
from p2pnode.serving.places import OnEvent, Places, reply
from p2pnode.serving.quotas import Quotas
from p2pnode.serving.requests import Requests
from p2pnode.serving.ring import Differs, following, reach
from p2pnode.serving.session import Gap, HopSession, Key
from p2pnode.serving.shadows import Shadows
from p2pnode.serving.worker import Outcome, Worker
from p2pnode.tasks import all_of
from p2pnode.types import PeerId
from p2pnode.wire.messages import Close, Cut, Fault, Hedge, Open, Reroute, Shadow, Step, Warm

log = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 0.01


class Handler:
    """Sessions of one block. ``async with`` owns the tasks that open and reroute them."""

    def __init__(
        self,
        block: Block,
        worker: Worker,
        admission: Admission,
        limits: Limits,
        on_event: OnEvent,
        quotas: Quotas | None = None,
    ) -> None:
        self.places = Places(block, admission, limits, on_event, worker, quotas)
        self._worker = worker
        self._admission = admission
        self._limits = limits
        self._requests = Requests()
        self._shadows = Shadows()
        self._reporting: set[Key] = set()

    @property
    def sessions(self) -> dict[Key, HopSession]:
        """Those that have a place now."""
        return self.places.sessions

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
            self.places.free(session)
        self.places.close_thread()
        await self._requests.__aexit__(kind, error, trace)

    async def run(self, links: Links) -> None:
        """Answer messages until cancelled; frees sessions whose client has gone silent."""
        self.places.links, self.places.protect = links, links.protect
        await all_of(self._worker.run(self._on_done), self.places.sweep(), self._shadows.run())

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
        """A link has ended (`LinkEvents`)."""
        self.places.on_lost(link, error)

    def _dispatch(self, link: Link, message: Any) -> None:
        match message:
            case Step():
                self._step(link, message)
            case Open():
                self._requests.start(self.places.open(link, message), link)
            case Reroute():
                self._requests.start(self._reroute(link, message), link)
            case Shadow():
                self._requests.start(self._shadow(link, message), link)
            case Warm():
                self._requests.start(self._warm(message), link)
            case Hedge():
                self._hedge(link, message)
            case Cut():
                self._cut(link, message)
            case Close():
                self.places.close(link, message)
            case Fault():
                self._pass_on(link, message)
            case _:
                raise PeerMisbehaved(link.peer, f"sent a {type(message).__name__} to a node")

    # --- one message each

    async def _reroute(self, link: Link, message: Reroute) -> None:
        session = await self.places.reroute(link, message)
        if session is None:
            return
        self._send(session)
        early, session.early = session.early, []
        for sender, step in early:
            self._step(sender, step)
        await reach(session, self.places.links, message.ring_addresses)

    async def _shadow(self, link: Link, message: Shadow) -> None:
        session = self.places.of(link, message.session, message.layer)
        if session is None or session.epoch != message.epoch:
            return
        try:
            next_link = await self.places.next_link(message)
        except PeerError as error:  # no standby is no failure: its hop still runs
            log.debug("standby unreachable: peer=%s error=%s", link.peer.short, error)
            next_link = None
        if session.epoch == message.epoch:
            self._shadows.set(session, message, next_link)

    async def _warm(self, message: Warm) -> None:
        with contextlib.suppress(PeerError):  # whoever needs it will find out
            await self.places.links.connect(message.peer, message.addresses)

    def _hedge(self, link: Link, message: Hedge) -> None:
        """As the hop before a late one, pass it on; as the standby of the late one, speak."""
        session = self.sessions.get((message.session, message.layer))
        if session is None or session.epoch != message.epoch:
            return
        if link.peer not in (session.previous, session.client.peer):
            return
        if session.is_standby:
            session.hedged_at = message.position
            self._pass(session, session.hedged())
        else:
            self._shadows.hedge(session, message)

    def _cut(self, link: Link, message: Cut) -> None:
        session = self.places.of(link, message.session, message.layer)
        if session is not None and session.epoch == message.epoch:
            session.cut(message.branch, message.position)

    def _step(self, link: Link, message: Step) -> None:
        session = self.sessions.get((message.session, message.layer))
        if session is not None and session.keep_early(link, message):
            return
        if session is None or not session.may_step(link.peer, message):
            reply(link, replies.unknown(message))
            return
        self._feed(session, message, link.peer)

    def _feed(self, session: HopSession, step: Step, sender: PeerId) -> None:
        """Run a step that its sender may send, or say what is wrong with it.

        Raises PeerMisbehaved for what its client has done.
        """
        try:
            self._run(session, step, sender)
        except Gap:
            what = f"a step at {step.position}, only {session.accepted} tokens are held"
            reply(session.client, replies.fault(session, "gap", what, session.previous))
        except Differs as error:
            reply(session.client, replies.fault(session, "ring", str(error), error.peer))
        except PeerMisbehaved as error:
            if error.peer == session.client.peer:
                raise
            # Its client may have contrived it, and the link is not its alone.
            reply(session.client, replies.fault(session, "input", str(error), error.peer))

    def _run(self, session: HopSession, step: Step, sender: PeerId) -> None:
        self._admission.check_entry(sender, step, session)
        job = session.accept(step, sender, now=asyncio.get_running_loop().time())
        if job is not None:
            self._worker.submit(job)
        if session.ring is not None and (waiting := session.ring.released()) is not None:
            self._run(session, waiting, session.ring.peer)

    def _on_done(self, job: Job, outcome: Outcome, queue_s: float, compute_s: float) -> None:
        session = job.session
        session.num_steps += 1
        session.queue_s += queue_s
        session.compute_s += compute_s
        if isinstance(outcome, ComputeFailed):
            self._failed(job, outcome)
        elif session.finish(job, outcome):
            self._hand_round(session, outcome)
            self._send(session, outcome)
            self._shadows.grew(session)
            self.places.trim(session, outcome.num_bytes)
            self._progress(session)

    def _send(self, session: HopSession, output: Output | None = None) -> None:
        """To the next hop whatever it has not been sent, or to the client what it waits for."""
        if not session.ends_chain:
            if session.next is None or session.next.is_open:
                self._pass(session, session.unsent(self._limits.chunk_tokens))
            self._pass(session, session.hedged())
        elif output is not None and (output.chosen or output.hidden is not None):
            session.hedged_at = None
            reply(session.client, replies.result(session, output))

    def _hand_round(self, session: HopSession, output: Output) -> None:
        """A token of the last hop goes to the first one, too, which may be on this node."""
        ring, step = session.ring, following(session, output)
        if ring is None or step is None:
            return
        if ring.peer != self.places.links.peer:
            if ring.link is not None:
                reply(ring.link, step)
            return
        first = self.sessions.get((session.id, step.layer))
        if first is not None and first.may_step(ring.peer, step):
            self._feed(first, step, ring.peer)

    def _pass(self, session: HopSession, steps: Iterable[Step]) -> None:
        """To the next hop, or to the client that carries them on to it."""
        for step in steps:
            if session.next is not None:
                reply(session.next, step)
            else:
                reply(session.client, replies.carried(session, step))

    def _failed(self, job: Job, error: ComputeFailed) -> None:
        session = job.session
        if error.cause != CAUSE:  # which is its client's doing
            self._worker.tally.failed(error.cause, asyncio.get_running_loop().time())
        if job.is_void:
            return
        session.fail(job)
        log.warning("step failed: layers=%s error=%s", session.layers, error)
        kind = error.cause if error.cause in ("input", CAUSE) else "compute"
        blamed = session.previous if kind == "input" else None
        reply(session.client, replies.fault(session, kind, str(error), blamed))
        if error.cause == "out-of-memory":
            self.places.free(session)  # its memory is what the others need
            self.places.free_memory()

    def _progress(self, session: HopSession) -> None:
        """Say how far we are: at once, but not more often than every `PROGRESS_INTERVAL_S`."""
        if session.key in self._reporting:
            return
        loop = asyncio.get_running_loop()
        due_at = session.reported_at + PROGRESS_INTERVAL_S
        if loop.time() >= due_at:
            self._report(session)
        else:
            self._reporting.add(session.key)
            loop.call_at(due_at, self._report_later, session)

    def _report(self, session: HopSession) -> None:
        session.reported_at = asyncio.get_running_loop().time()
        reply(session.client, replies.progress(session))

    def _report_later(self, session: HopSession) -> None:
        """What was done since the last report."""
        self._reporting.discard(session.key)
        if not session.is_closed:
            self._report(session)

    def _pass_on(self, link: Link, message: Fault) -> None:
        """Our next hop cannot go on: its client may not be able to hear it from there."""
        for session in self.sessions.values():
            ours = session.id == message.session and session.layers.stop == message.layer
            if ours and session.next is link and session.epoch == message.epoch:
                reply(session.client, message)


def _bug(link: Link, error: Exception) -> PeerMisbehaved:
    """Log what should not have happened; that link ends, all else goes on."""
    log.error("bug: peer=%s", link.peer.short, exc_info=error)
    return PeerMisbehaved(link.peer, "sent a message that broke us")
