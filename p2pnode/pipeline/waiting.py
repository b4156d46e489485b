"""Waiting for the output of a step: whom to ask as well, whom to give up, what to learn from it."""

from __future__ import annotations

import asyncio
import logging

from p2pnode.errors import PeerError, PeerTimeout
from p2pnode.pipeline.awaited import Awaited
from p2pnode.pipeline.configure import Configuration
from p2pnode.pipeline.hops import HopState
from p2pnode.pipeline.inbox import Inbox
from p2pnode.pipeline.line import Flight
from p2pnode.pipeline.roles import Outpaced, Router, SessionLimits
from p2pnode.pipeline.standbys import Standbys
from p2pnode.pipeline.watch import Watch
from p2pnode.types import Hop
from p2pnode.wire.messages import Result

MIN_REPLAY_S = 1.0
REPLAY_TIMES = 4.0
MIN_STEP_S = 0.25
STEP_TIMES = 3.0
OVERSLEPT_S = 0.02
MOST_GRACE_S = 1.0
"""Who was kept from running for a while takes nobody for dead for as long again, up to this."""
SLOW_STEPS = 2
"""A hop that is late so many steps in a row has become slow; the next one is given twice as many,
and so on: where much is late, perhaps it is we who are slow."""
HANDED = -1
"""Steps of one token that the last hop has handed to the first."""

log = logging.getLogger(__name__)


class Waiting:
    """For one session: holds the times of its chain."""

    def __init__(
        self, inbox: Inbox, standbys: Standbys, router: Router, limits: SessionLimits
    ) -> None:
        self._inbox = inbox
        self._standbys = standbys
        self._router = router
        self._limits = limits
        self._chain: list[Hop] = []
        self._watches: dict[int, Watch] = {}
        """By the size of steps: 1 token, 2, up to 4, up to 8, and so on; `HANDED` by itself."""
        self._s_per_token: float | None = None
        self._prefill_s: float | None = None
        """Of the last prefill or replay."""
        self._told_at = 0.0
        """When the last output came."""
        self._slow_steps = SLOW_STEPS

    def expect(self, hops: list[HopState]) -> None:
        """The chain is this now; times stay known where the layers are the same."""
        before, self._chain = self._chain, [state.hop for state in hops]
        if [hop.layers for hop in before] != [hop.layers for hop in self._chain]:
            self._watches.clear()
            return
        pairs = enumerate(zip(before, self._chain, strict=True))
        changed = [index for index, (old, new) in pairs if old != new]
        for watch in self._watches.values() if changed else ():
            watch.replace(changed[0])

    def loop_s(self) -> float:
        """What a step of one token takes that we send ourselves.

        Before one was seen, what follows from those that are handed on, or what the prompt took.
        """
        sent, handed = self._mean_s(0), self._mean_s(HANDED)
        if sent or not handed:
            return sent or self._prefill_s or 0.0
        return handed * (len(self._chain) + 1) / len(self._chain)

    def plain_s(self) -> float:
        """What a token takes without guesses."""
        return self._mean_s(HANDED) or self.loop_s()

    def _mean_s(self, size: int) -> float:
        watch = self._watches.get(size)
        return watch.lags[-1].mean_s if watch is not None and watch.is_learned else 0.0

    def heard_s(self) -> list[float]:
        """How long after the start of a step each hop is heard, lately; of the smallest steps that
        were measured, and empty before that."""
        learned = [size for size, watch in self._watches.items() if watch.is_learned]
        return [lag.mean_s for lag in self._watches[min(learned)].lags] if learned else []

    async def result(self, now: Configuration) -> Result:
        """The output of the last known token; raises the PeerError that stands in its way.

        The times of a step are measured where no hop has to run more than its own tokens.
        """
        clock = asyncio.get_running_loop().time
        flight = now.line.awaited or Flight(len(now.token_ids) - 1, len(now.token_ids), clock())
        num_behind = len(now.token_ids) - min(state.held for state in now.hops)
        is_decode = num_behind <= 1
        excess_s = self._excess_s(now, flight) if is_decode else []
        watch = self._watch(flight) if is_decode else None
        awaited = self._begin(flight, watch)
        try:
            while not awaited.result.done():
                wait_s = (
                    self._next_look_s(now, awaited, watch, excess_s, clock())
                    if watch is not None and watch.is_learned
                    else self._until_silent_s(now, awaited, num_behind, clock())
                )
                await self._wait(awaited, wait_s)
            answer = awaited.result.result()
        finally:
            self._inbox.expect_nothing()
        told_at, self._told_at = self._told_at, awaited.answered_at
        if watch is not None:
            # A step that was handed on began when its token was told, however late we ask for it.
            watch.end(awaited.answered_at, told_at if flight.is_handed else flight.sent_at)
            self._learn(now, awaited, watch, flight)
        else:
            self._prefill_s = clock() - flight.sent_at
            self._s_per_token = self._prefill_s / num_behind
        return answer

    async def _wait(self, awaited: Awaited, wait_s: float) -> None:
        """For the answer, for so long; when we oversleep, what has come meanwhile is read first."""
        clock = asyncio.get_running_loop().time
        due_at = clock() + wait_s
        await asyncio.wait([awaited.result], timeout=wait_s)
        late_s = clock() - due_at
        if late_s > OVERSLEPT_S and not awaited.result.done():
            await asyncio.wait([awaited.result], timeout=min(late_s, MOST_GRACE_S))

    def _watch(self, flight: Flight) -> Watch:
        size = HANDED if flight.is_handed else (flight.num_tokens - 1).bit_length()
        if size not in self._watches:
            self._watches[size] = Watch(len(self._chain), self._limits.step_floor_s)
        return self._watches[size]

    def _begin(self, flight: Flight, watch: Watch | None) -> Awaited:
        future = asyncio.get_running_loop().create_future()
        moved_at = max([flight.sent_at, *flight.heard.values()])
        awaited = Awaited(future, flight, moved_at, watch)
        if watch is not None:
            watch.start(flight.sent_at)
            for index, at in flight.heard.items():
                watch.hear(index, at)
        self._inbox.expect(awaited)
        return awaited

    def _until_silent_s(
        self, now: Configuration, awaited: Awaited, num_behind: int, time_s: float
    ) -> float:
        """Prefill and replay: something must be heard of each chunk; from the last one's times."""
        patience_s = self._limits.step_timeout_s
        if self._s_per_token is not None:
            chunk = min(num_behind, self._limits.chunk_tokens)
            wanted_s = MIN_REPLAY_S + REPLAY_TIMES * self._s_per_token * chunk * len(now.hops)
            patience_s = min(patience_s, wanted_s)
        if num_behind <= 1 and self._prefill_s is not None:  # a step cannot take much longer
            patience_s = min(patience_s, max(MIN_STEP_S, STEP_TIMES * self._prefill_s))
        left_s = awaited.moved_at + patience_s - time_s
        if left_s <= 0:
            raise _silence(_first_behind(now), patience_s)
        return left_s

    def _next_look_s(
        self,
        now: Configuration,
        awaited: Awaited,
        watch: Watch,
        excess_s: list[float],
        time_s: float,
    ) -> float:
        """Seconds until something may have to be done; hedges and raises when it is time."""
        ready = [self._standbys.is_ready(index) for index in range(len(now.hops))]
        due = watch.due(ready, excess_s)
        if time_s >= due.dead_at:
            watch.give_up()
            raise _silence(now.hops[due.index], time_s - awaited.moved_at)
        may_hedge = awaited.hedged is None and ready[due.index]
        if may_hedge and time_s < due.hedge_at:
            return due.hedge_at - time_s
        if may_hedge and self._standbys.hedge(now, due.index):
            awaited.hedged = due.index
        return due.dead_at - time_s

    def _excess_s(self, now: Configuration, flight: Flight) -> list[float]:
        """By how much each hop computes longer than is usual for its layers."""
        usual = [self._router.usual_s(state.hop.layers, flight.num_tokens) for state in now.hops]
        return [
            0.0 if each is None else state.recent_compute_s - each
            for state, each in zip(now.hops, usual, strict=True)
        ]

    def _learn(self, now: Configuration, awaited: Awaited, watch: Watch, flight: Flight) -> None:
        """A decode step is done: its times are the measure of the next one's."""
        for index, state in enumerate(now.hops if flight.num_tokens == 1 else ()):
            step_s = watch.step_s(index)
            if step_s is not None:
                is_handed = flight.is_handed and index == 0
                self._router.measured(state.peer, step_s, is_handed=is_handed)
            is_slow = watch.late_steps[index] >= self._slow_steps
            if is_slow and not state.gives_way and self._standbys.is_ready(index):
                self._slow_steps *= 2
                self._give_way(state, "has become slow")
        if awaited.hedged is not None and awaited.is_outpaced:
            self._give_way(now.hops[awaited.hedged], "its standby was faster")

    def _give_way(self, state: HopState, what: str) -> None:
        if not state.gives_way:
            state.gives_way = True
            log.info("hop gives way: peer=%s reason=%s", state.peer.short, what)
            self._router.blame(Outpaced(state.peer, what))


def _first_behind(now: Configuration) -> HopState:
    """The first hop that lacks the last token."""
    due = len(now.token_ids)
    return next((state for state in now.hops if state.held < due), now.hops[-1])


def _silence(state: HopState, silent_s: float) -> PeerError:
    return PeerTimeout(state.peer, f"no output of layers {state.hop.layers} for {silent_s:.1f} s")
