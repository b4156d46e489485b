"""A warm standby for each hop: found, opened, kept up to date, promoted; and hedged to.

A standby runs the same layers on the same inputs, copied lazily from the journal of the hop before
(for the first hop: by us), and sends nothing. When its hop fails it takes the place: only the tail
that it lacks is replayed. When its hop is late it is asked to speak once (`Hedge`).

The keeper runs between two configurations: it is cancelled before a chain is mended, and started
again afterwards, for the new epoch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from p2pnode.errors import P2PNodeError, PeerError, PeerLost
from p2pnode.net.link import Link
from p2pnode.net.links import Links
from p2pnode.pipeline.configure import Configuration, ask, connect, int64, take
from p2pnode.pipeline.hops import HopState
from p2pnode.pipeline.roles import Router, SessionLimits
from p2pnode.tasks import all_of
from p2pnode.types import PeerId
from p2pnode.wire.messages import Close, Hedge, Open, Reroute, Shadow, Step

log = logging.getLogger(__name__)

RETRY_S = 3.0
"""When nobody can stand by; when somebody would not, the next one is asked sooner."""
NEXT_S = 0.25
COPY_TOKENS = 16
MAX_BEHIND_TOKENS = 128
"""A standby further behind is not asked to speak: it could not in time."""
MAX_TAIL_TOKENS = 2 * COPY_TOKENS
"""While a hop still works, no standby further behind takes its place: the session would wait for
what that one lacks."""
HEDGE_SHARE = 0.05


class Standbys:
    """The standbys of one session, by the index of their hop."""

    def __init__(self, links: Links, router: Router, limits: SessionLimits) -> None:
        self.states: dict[int, HopState] = {}
        """Those that are ready."""
        self._links = links
        self._router = router
        self._chunk_tokens = limits.chunk_tokens
        self._open_timeout_s = limits.open_timeout_s
        self._opening: list[HopState] = []
        self._retry_at: dict[int, float] = {}
        self._told: dict[int, tuple[PeerId | None, PeerId | None]] = {}
        self._fed = 0
        self._wake = asyncio.Event()
        self._num_steps = 0
        self.num_hedges = 0

    @property
    def all(self) -> list[HopState]:
        """Also those that are about to become one."""
        return [*self.states.values(), *self._opening]

    # --- the keeper

    async def run(self, now: Configuration) -> None:
        """Keep a standby for each hop, as far as there are peers, until cancelled."""
        self._told.clear()
        self._retry_at.clear()
        kept, self.states = self.states, {}
        await all_of(*(self._renew(now, index, state) for index, state in kept.items()))
        while True:
            await self._fill(now)
            self._tell_neighbours(now)
            self._feed_first(now)
            try:
                async with asyncio.timeout(self._until_retry_s()):
                    await self._wake.wait()
            except TimeoutError:
                continue
            self._wake.clear()

    def _until_retry_s(self) -> float:
        time_s = asyncio.get_running_loop().time()
        missing = [at for index, at in self._retry_at.items() if index not in self.states]
        return min([RETRY_S, *(max(NEXT_S, at - time_s) for at in missing)])

    async def _fill(self, now: Configuration) -> None:
        time_s = asyncio.get_running_loop().time()
        for index, state in list(self.states.items()):
            if not state.is_usable:
                del self.states[index]
                self._retry_at[index] = time_s
        first = 1 if now.terms.has_local_ends else 0  # nobody else may see those token ids
        missing = [
            index
            for index in range(first, len(now.hops))
            if index not in self.states and time_s >= self._retry_at.get(index, 0.0)
        ]
        for index in missing:
            self._retry_at[index] = time_s + RETRY_S
        await all_of(*(self._find(now, index) for index in missing))

    async def _find(self, now: Configuration, index: int) -> None:
        """Find and open a standby for that hop; on failure it is tried again later."""
        limit = now.terms.max_tokens
        try:
            hop = await self._router.standby(now.chain, index, limit)
        except P2PNodeError as error:  # the directory, say; the chain itself still runs
            log.debug("no standby found: error=%s", error)
            return
        if hop is not None:
            request = now.open(index, limit, now.terms.pages)
            await self._place(now, index, HopState(hop), request)

    async def _renew(self, now: Configuration, index: int, state: HopState) -> None:
        """Take a standby over into a new epoch, or let it go."""
        fits = index < len(now.hops) and now.hops[index].hop.layers == state.hop.layers
        if fits and state.is_usable and state.peer not in neighbours(now.hops, index):
            request = now.reroute(index, state, state.held, now.terms.max_tokens)
            await self._place(now, index, state, request)
        else:
            self._close(now, state)

    async def _place(
        self, now: Configuration, index: int, state: HopState, request: Open | Reroute
    ) -> None:
        """Ask a peer to stand by; it is ready when it has said yes."""
        self._opening.append(state)
        try:
            async with asyncio.timeout(self._open_timeout_s):
                await connect(self._links, state)
                if isinstance(request, Open):
                    await take(state, request)
                else:
                    answer = await ask(state, request)
                    state.held = min(state.held, answer.position)
                self.states[index] = state
        except TimeoutError:
            log.debug("no standby yet: layers=%s", state.hop.layers)
        except PeerError as error:
            log.debug("no standby yet: error=%s", error)
            self._router.blame(error)
            self._retry_at[index] = asyncio.get_running_loop().time() + NEXT_S
        finally:
            self._opening.remove(state)
            if self.states.get(index) is not state:
                self._close(now, state)

    def _tell_neighbours(self, now: Configuration) -> None:
        configuration = now
        for index, hop in enumerate(configuration.hops):
            before, after = self.states.get(index - 1), self.states.get(index + 1)
            names = (before.peer if before else None, after.peer if after else None)
            if self._told.get(index, (None, None)) == names:
                continue
            self._told[index] = names
            message = Shadow(
                session=configuration.terms.session,
                layer=hop.layer,
                epoch=configuration.epoch,
                previous=names[0],
                next=names[1],
                next_addresses=after.hop.addresses if after else (),
                position=after.held if after else 0,
            )
            _try_send(hop, message)
        if 0 in self.states and self._told.get(-1) != (self.states[0].peer, None):
            self._told[-1] = (self.states[0].peer, None)
            self._fed = self.states[0].held

    # --- the first hop's standby is fed by us

    def on_token(self, num_tokens: int) -> None:
        """Another token is known."""
        self._num_steps += 1
        if 0 in self.states and num_tokens - self._fed > COPY_TOKENS:
            self._wake.set()

    def _feed_first(self, now: Configuration, *, leave: int = 1) -> None:
        state, configuration = self.states.get(0), now
        stop = len(configuration.token_ids) - leave
        if state is None or configuration.terms.has_local_ends:
            return
        while self._fed < stop:
            chunk_stop = min(stop, self._fed + self._chunk_tokens)
            step = Step(
                session=configuration.terms.session,
                layer=state.layer,
                epoch=configuration.epoch,
                branch=configuration.line.branch,
                position=self._fed,
                entry=int64(configuration.token_ids[self._fed : chunk_stop]),
            )
            if not _try_send(state, step):
                return
            self._fed = chunk_stop

    # --- using them

    def is_ready(self, index: int) -> bool:
        """Whether that hop has a standby that could take its place now."""
        state = self.states.get(index)
        return state is not None and state.is_usable

    def may_replace(self, hops: Sequence[HopState], index: int) -> bool:
        """Whether that one could take the place of ``hops[index]`` in this chain."""
        return self.is_ready(index) and self.states[index].peer not in neighbours(hops, index)

    def can_relieve(self, hops: Sequence[HopState], index: int, num_tokens: int) -> bool:
        """Whether it could do so at once, when so many tokens are known."""
        is_near = index in self.states and num_tokens - self.states[index].held <= MAX_TAIL_TOKENS
        return is_near and self.may_replace(hops, index)

    def replace_lost(self, hops: list[HopState]) -> list[HopState]:
        """Put ready standbys in the places of lost hops; returns those that are out."""
        out = []
        for index, state in enumerate(hops):
            if state.is_lost and self.may_replace(hops, index):
                out.append(state)
                hops[index] = self.states.pop(index)
        return out

    def hedge(self, now: Configuration, index: int) -> bool:
        """Ask the standby of a late hop as well; whether it was asked."""
        state, configuration = self.states.get(index), now
        position = len(configuration.token_ids) - 1
        is_last = index == len(configuration.hops) - 1
        if state is None or not state.is_usable or position - state.held > MAX_BEHIND_TOKENS:
            return False
        if is_last and configuration.terms.needs_tokens:
            return False  # it has not been told the tokens that it would need
        if index == 0 and configuration.terms.has_local_ends:
            return False
        if self.num_hedges + 1 > max(1.0, HEDGE_SHARE * self._num_steps):
            return False
        receiver = state if index == 0 else configuration.hops[index - 1]
        if index == 0:
            self._feed_first(now, leave=0)
        hedge = Hedge(
            session=configuration.terms.session,
            layer=receiver.layer,
            epoch=configuration.epoch,
            position=position,
        )
        self.num_hedges += 1
        log.debug("hedged: peer=%s position=%d", configuration.hops[index].peer.short, position)
        return _try_send(receiver, hedge)

    # --- events

    def on_lost(self, link: Link, error: PeerError) -> None:
        """A link has ended: a standby on it is none any more."""
        for state in self.all:
            if state.link is link:
                state.is_lost = True
                state.fail(error)
                self._wake.set()

    def on_fault(self, state: HopState, error: PeerError) -> None:
        """A standby cannot go on."""
        state.is_lost = True
        state.fail(error)
        self._wake.set()

    def on_draining(self, peer: PeerId) -> None:
        """A peer leaves: it stands by no longer, and if it is a hop it needs one at once."""
        for state in self.states.values():
            state.is_lost = state.is_lost or state.peer == peer
        self._retry_at.clear()
        self._wake.set()

    def close(self, now: Configuration) -> None:
        """Free them all."""
        for state in self.all:
            self._close(now, state)
        self.states.clear()

    def _close(self, now: Configuration, state: HopState) -> None:
        _try_send(state, Close(session=now.terms.session, layer=state.layer))


def neighbours(hops: Sequence[HopState], index: int) -> set[PeerId]:
    """The peers of a hop and of those next to it: none of them could take its place."""
    return {hop.peer for hop in hops[max(0, index - 1) : index + 2]}


def _try_send(state: HopState, message: object) -> bool:
    try:
        state.send(message)
    except PeerLost:
        return False
    return True
