"""What links tell a session: answers, progress, faults, losses. Everything is checked here.

Messages of another epoch are late and dropped. What a hop says of itself is believed up to the
tokens that there are; what it says of others only makes its client look for another pair.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from p2pnode.errors import PeerError, PeerFault, PeerLost, PeerMisbehaved, PeerTimeout
from p2pnode.net.link import Link
from p2pnode.pipeline.hops import ANSWERS, HopState
from p2pnode.pipeline.roles import Accused, Forgot
from p2pnode.pipeline.standbys import Standbys
from p2pnode.pipeline.watch import Watch
from p2pnode.types import PeerId
from p2pnode.wire.messages import Closed, Fault, Progress, Rerouted, Result, Step


class Inbox:
    """Receives for one session; `ChainSession` reads what it needs from here."""

    def __init__(self, standbys: Standbys, token_ids: list[int]) -> None:
        """token_ids: the session's own list, only read here."""
        self.is_broken = True
        """Whether the chain has to be configured before the next step."""
        self.hedged: int | None = None
        """The hop whose standby was asked to answer the step on its way, too."""
        self.is_outpaced = False
        """Whether that standby answered first."""
        self.moved_at = 0.0
        """When anything was last heard of that step."""
        self._standbys = standbys
        self._token_ids = token_ids
        self._hops: list[HopState] = []
        self._epoch = 0
        self._watch: Watch | None = None
        self._result: asyncio.Future[Result] | None = None
        self._trouble: PeerError | None = None
        """Happened while nobody waited for a result."""

    def begin(self, hops: list[HopState], epoch: int) -> None:
        """A new configuration: what belongs to older ones is dropped from now on."""
        self._hops, self._epoch, self._trouble = hops, epoch, None

    def expect_result(self, watch: Watch | None, now: float) -> asyncio.Future[Result]:
        """A future for the output of the last token; raises what has happened meanwhile.

        watch: told who has done the step, when it is one whose times are measured.
        """
        if self._trouble is not None:
            raise self._trouble
        for state in self._hops:
            if not state.is_usable:
                raise PeerLost(state.peer, "its link is gone")
        self._result = asyncio.get_running_loop().create_future()
        self._watch, self.hedged, self.moved_at = watch, None, now
        self.is_outpaced = False
        if watch is not None:
            watch.start(now)
        return self._result

    def expect_no_result(self) -> None:
        """Nobody waits any more."""
        self._result = None

    def first_behind(self) -> int:
        """The first hop that lacks the last token, by its index."""
        due = len(self._token_ids)
        behind = (index for index, state in enumerate(self._hops) if state.held < due)
        return next(behind, len(self._hops) - 1)

    # --- events of links

    def on_message(self, link: Link, message: Any) -> None:
        """A message of this session; raises PeerMisbehaved for a kind that no node sends."""
        if isinstance(message, Closed):
            self._on_closed(link, message)
        elif not isinstance(message, ANSWERS):
            raise PeerMisbehaved(link.peer, f"sent a client a {type(message).__name__}")
        elif message.epoch != self._epoch:
            return  # late
        elif isinstance(message, Result):
            self._on_result(link, message)
        elif isinstance(message, Fault):
            self._on_fault(link, message)
        elif isinstance(message, Progress):
            self._on_progress(link, message)
        else:
            self._on_answer(link, message)

    def on_lost(self, link: Link, error: PeerError) -> None:
        """A link has ended; matters if a hop of ours was at its other end."""
        self._standbys.on_lost(link, error)
        for state in self._hops:
            if state.link is link:
                self._lose(state, error)

    def on_dead(self, peer: PeerId) -> None:
        """Gossip says that a peer is dead."""
        for state in self._hops:
            if state.peer == peer:
                self._lose(state, PeerTimeout(peer, "is dead, its neighbours say"))

    def on_draining(self, peer: PeerId) -> None:
        """A peer leaves: it gives way as soon as its standby is ready."""
        for state in [*self._hops, *self._standbys.all]:
            if state.peer == peer:
                state.gives_way = True
        self._standbys.on_draining(peer)

    def _lose(self, state: HopState, error: PeerError) -> None:
        state.is_lost = self.is_broken = True
        state.fail(error)
        self._fail_step(error)

    def _on_closed(self, link: Link, message: Closed) -> None:
        state = _find(self._hops, link, message.layer)
        if state is not None and state.is_closing:
            state.cost(message)
            state.answer(message)

    def _on_progress(self, link: Link, message: Progress) -> None:
        num_tokens, now = len(self._token_ids), asyncio.get_running_loop().time()
        standby = _find(self._standbys.all, link, message.layer)
        if standby is not None:
            standby.progress(message, num_tokens)
            return
        state = _find(self._hops, link, message.layer)
        if state is None:
            return
        state.progress(message, num_tokens)
        self.moved_at = now
        if self._watch is not None and message.position >= num_tokens:
            self._watch.hear(self._hops.index(state), now)

    def _on_result(self, link: Link, result: Result) -> None:
        if self._hops and result.layer != self._hops[-1].layer:
            self._carry(link, result)
            return
        if result.position != len(self._token_ids) - 1 or not self._may_answer(link):
            return
        for index, state in enumerate(self._hops):
            if index != self.hedged:  # that one may not have done it yet
                state.held = result.position + 1
        if self._result is not None and not self._result.done():
            self.is_outpaced = self._has_lost_hedge(link)
            self._result.set_result(result)

    def _carry(self, link: Link, result: Result) -> None:
        """What a hop has made goes on to the next one, which it cannot reach itself."""
        states = [*self._hops, *self._standbys.all]
        state = _find(states, link, result.layer)
        if state is None or result.hidden is None:
            raise PeerMisbehaved(link.peer, "sent a result that is none")
        following = next((s for s in self._hops if s.layer == state.hop.layers.stop), None)
        if following is None or not following.hop.is_carried:
            return
        step = Step(
            session=result.session,
            layer=following.layer,
            epoch=result.epoch,
            position=result.position,
            entry=result.hidden,
        )
        with contextlib.suppress(PeerLost):  # whoever waits for the answer hears of it
            following.send(step)

    def _may_answer(self, link: Link) -> bool:
        last = len(self._hops) - 1
        standby = self._standbys.states.get(last) if self.hedged == last else None
        return link in (self._hops[-1].link, standby.link if standby else None)

    def _has_lost_hedge(self, link: Link) -> bool:
        """Whether an answer came although the hedged hop has not been heard of."""
        if self.hedged == len(self._hops) - 1:
            return link is not self._hops[-1].link
        if self.hedged is None or self._watch is None:
            return False
        return not self._watch.has_heard(self.hedged)

    def _on_answer(self, link: Link, message: Any) -> None:
        state = _find([*self._hops, *self._standbys.all], link, message.layer)
        if state is None:
            return
        if isinstance(message, Rerouted) and state in self._hops:
            self._check_rerouted(state, message)
        state.answer(message)

    def _check_rerouted(self, state: HopState, message: Rerouted) -> None:
        """It was believed to hold ``state.held``, and to replay from where its successor is."""
        if message.position < state.held:
            what = f"holds {message.position} tokens where it had said {state.held}"
            self._fail_step(PeerFault(state.peer, what))
            return
        state.replays_from = max(state.replays_from, message.replays_from)
        index = self._hops.index(state)
        if index + 1 < len(self._hops):
            needed = self._hops[index + 1].held
            if needed < state.held and needed < message.replays_from:
                what = f"holds its outputs from {message.replays_from} on, {needed} is needed"
                self._fail_step(Forgot(state.peer, what))

    def _on_fault(self, link: Link, fault: Fault) -> None:
        """A hop cannot go on: it, or a neighbour that it names, has to be replaced."""
        standby = _find(self._standbys.all, link, fault.layer)
        if standby is not None:
            self._standbys.on_fault(standby, PeerFault(standby.peer, fault.detail[:200]))
            return
        members = {state.peer for state in self._hops}
        state = next((state for state in self._hops if state.layer == fault.layer), None)
        if link.peer not in members or state is None:
            return
        what = f"{fault.fault}: {fault.detail[:200]}"
        error: PeerError = PeerFault(state.peer, what)
        if fault.blamed is not None and fault.blamed in members - {state.peer}:
            error = Accused(fault.blamed, what, reporter=state.peer)
        state.fail(error)
        self._fail_step(error)

    def _fail_step(self, error: PeerError) -> None:
        if self._result is None:
            self._trouble = error
        elif not self._result.done():
            self._result.set_exception(error)
            self._result.exception()  # seen: who waits may be cancelled right now


def _find(states: list[HopState], link: Link, layer: int) -> HopState | None:
    for state in states:
        if state.link is link and state.layer == layer:
            return state
    return None
