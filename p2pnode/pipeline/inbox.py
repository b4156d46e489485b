"""What links tell a session: answers, progress, faults, losses. Everything is checked here.

Messages of another epoch are late and dropped. What a hop says of itself is believed up to the
tokens that there are; what it says of others only makes its client look for another pair.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

from p2pnode.errors import PeerError, PeerFault, PeerLost, PeerMisbehaved, PeerTimeout
from p2pnode.net.link import Link
from p2pnode.pipeline.awaited import Awaited
from p2pnode.pipeline.hops import ANSWERS, HopState
from p2pnode.pipeline.line import Line
from p2pnode.pipeline.roles import Accused, Forgot, Unfollowed
from p2pnode.pipeline.standbys import Standbys
from p2pnode.types import PeerId
from p2pnode.wire.messages import Closed, Fault, Progress, Rerouted, Result, Step

MAX_RESULTS = 128
"""More than a ring runs ahead, and than guesses are sent."""
NONE = -1
"""An epoch that is none."""
OnComputed = Callable[[int, int, float], None]
"""Told (hop's index, tokens, seconds) of a step of a hop."""


class Inbox:
    """Receives for one session; `ChainSession` reads what it needs from here."""

    def __init__(self, standbys: Standbys, line: Line) -> None:
        """line: the session's own, which is told here how far its steps are."""
        self.is_broken = True
        """Whether the chain has to be configured before the next step."""
        self._standbys = standbys
        self._line = line
        self._hops: list[HopState] = []
        self._epoch = 0
        self._awaited: Awaited | None = None
        self._results: deque[tuple[Result, float]] = deque()
        """Came while none was awaited, and when."""
        self._answered: tuple[int, int | None] = 0, None
        """Up to where the last answer reached, and which hop did not have to make it."""
        self.is_ring_broken = False
        """Whether the last hop's ring has told a hop what was not so."""
        self.on_computed: OnComputed | None = None
        self._trouble: PeerError | None = None
        """Happened while no step was awaited."""

    def begin(self, hops: list[HopState], epoch: int) -> None:
        """A new configuration: what belongs to older ones is dropped from now on."""
        self._hops, self._epoch, self._trouble = hops, epoch, None
        self._results.clear()

    def expect(self, awaited: Awaited) -> None:
        """Tell it what is heard of the last token; raises what has happened meanwhile.

        What was answered before that counts first.
        """
        while self._results and not awaited.result.done():
            result, at = self._results.popleft()
            self._answer(awaited, result, at, is_by_standby=False)
        if not awaited.result.done():
            if self._trouble is not None:
                raise self._trouble
            for state in self._hops:
                if not state.is_usable:
                    raise PeerLost(state.peer, "its link is gone")
        self._awaited = awaited

    def expect_nothing(self) -> None:
        """Nobody waits any more."""
        self._awaited = None

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
        num_tokens = len(self._line.tokens)
        standby = _find(self._standbys.all, link, message.layer)
        if standby is not None:
            standby.progress(message, num_tokens)
            return
        state = _find(self._hops, link, message.layer)
        if state is None:
            return
        if message.branch != self._line.branch:  # what it holds is not what we know
            state.cost(message)
            return
        num_before = state.num_steps
        state.progress(message, num_tokens)
        index, now = self._hops.index(state), asyncio.get_running_loop().time()
        news = self._line.heard(index, message.position, now)
        if self.on_computed and len(news) == 1 == state.num_steps - num_before:
            self.on_computed(index, news[0].num_tokens, state.recent_compute_s)
        if self._awaited is not None:
            is_done = message.position >= self._awaited.flight.stop
            self._awaited.progress(index, now, is_done=is_done)

    def _on_result(self, link: Link, result: Result) -> None:
        if self._hops and result.layer != self._hops[-1].layer:
            self._carry(link, result)
            return
        awaited, last = self._awaited, len(self._hops) - 1
        if not self._hops or result.branch != self._line.branch:
            return
        is_by_standby = link is not self._hops[last].link
        now = asyncio.get_running_loop().time()
        if awaited is None or awaited.result.done():
            if not is_by_standby and len(self._results) < MAX_RESULTS:
                self._results.append((result, now))
        elif not is_by_standby or (awaited.hedged == last and self._is_standby(link, last)):
            self._answer(awaited, result, now, is_by_standby=is_by_standby)

    def _answer(self, awaited: Awaited, result: Result, at: float, *, is_by_standby: bool) -> None:
        """The answer of the last known token, or of earlier ones as well; all else is no news."""
        newest, stop = len(self._line.tokens) - 1, result.position + num_rows(result)
        is_news = result.position <= newest < max(stop, result.position + 1)
        if is_news and result.branch == self._line.branch:
            self._answered = stop, awaited.hedged
            awaited.answer(result, at, len(self._hops) - 1, is_by_standby=is_by_standby)

    def learned(self) -> None:
        """The tokens of the last answer are known now: what it proves of the hops."""
        stop, hedged = self._answered
        for index, state in enumerate(self._hops):
            if index != hedged:  # that one may not have done it yet
                state.held = max(state.held, min(stop, len(self._line.tokens) - 1))

    def _is_standby(self, link: Link, index: int) -> bool:
        standby = self._standbys.states.get(index)
        return standby is not None and standby.link is link

    def _carry(self, link: Link, result: Result) -> None:
        """What a hop has made goes on to the next one, which it cannot reach itself."""
        states = [*self._hops, *self._standbys.all]
        state = _find(states, link, result.layer)
        if state is None or result.hidden is None:
            raise PeerMisbehaved(link.peer, "sent a result that is none")
        following = next((s for s in self._hops if s.layer == state.hop.layers.stop), None)
        if following is None or not following.hop.is_carried:
            return
        stop = result.position + result.hidden.shape[0]
        step = Step(
            session=result.session,
            layer=following.layer,
            epoch=result.epoch,
            branch=result.branch,
            position=result.position,
            num_guessed=max(0, stop - len(self._line.tokens)),
            entry=result.hidden,
        )
        with contextlib.suppress(PeerLost):  # whoever waits for the answer hears of it
            following.send(step)

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
        if fault.fault == "ring":
            self._forget_answer()
        what = f"{fault.fault}: {fault.detail[:200]}"
        kind = Unfollowed if fault.fault == "constraint" else PeerFault
        error: PeerError = kind(state.peer, what)
        if fault.blamed is not None and fault.blamed in members - {state.peer}:
            error = Accused(fault.blamed, what, reporter=state.peer)
        state.fail(error)
        self._fail_step(error)

    def _forget_answer(self) -> None:
        """What hops hold of the answer may be wrong, and what they still say of it."""
        self.is_ring_broken, self._epoch = True, NONE
        self._results.clear()
        for state in [*self._hops, *self._standbys.all]:
            state.held = min(state.held, self._line.num_given)

    def _fail_step(self, error: PeerError) -> None:
        if self._awaited is None:
            self._trouble = error
        else:
            self._awaited.fail(error)


def num_rows(result: Result) -> int:
    """For how many positions a last hop has answered; what it may be is checked elsewhere."""
    if result.hidden is None:
        return len(result.token_ids)
    return result.hidden.shape[0] if len(result.hidden.shape) == 2 else 1


def _find(states: list[HopState], link: Link, layer: int) -> HopState | None:
    for state in states:
        if state.link is link and state.layer == layer:
            return state
    return None
