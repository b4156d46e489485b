"""One generation through a chain of peers; survives the loss of any of them.

The client's token list is the truth: a token enters it once, in order. Everything else (epoch,
chain, what each hop holds) can be lost and is rebuilt from it and from the hops' journals.

Failover, in `_mend`: raise the epoch, put a ready standby in the place of a lost hop or ask the
router for a mended chain, configure it (see `pipeline.configure`), and go on feeding from where
the first hop is. The step in flight is simply fed again: a step truncates to its position.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from types import TracebackType
from typing import Self

from p2pnode.errors import NoChain, PeerError, PeerLost
from p2pnode.net.links import Links
from p2pnode.pipeline.answers import next_token
from p2pnode.pipeline.configure import Configuration, Terms, int64
from p2pnode.pipeline.hops import HopState
from p2pnode.pipeline.inbox import Inbox
from p2pnode.pipeline.roles import Ends, Forgot, Router, SessionLimits
from p2pnode.pipeline.spares import keep_warm
from p2pnode.pipeline.standbys import Standbys
from p2pnode.pipeline.waiting import Waiting
from p2pnode.tasks import Tasks
from p2pnode.types import Chain, ModelSpec, Sampling
from p2pnode.wire.messages import SESSION_BYTES, Close, Step

log = logging.getLogger(__name__)


class ChainSession:
    """Feeds tokens to a chain and receives the next ones. ``async with`` frees every hop."""

    def __init__(
        self,
        *,
        links: Links,
        tasks: Tasks,
        router: Router,
        spec: ModelSpec,
        limits: SessionLimits,
        sampling: Sampling,
        prompt: list[int],
        max_new_tokens: int,
        ends: Ends | None = None,
    ) -> None:
        """tasks: owns the task that keeps the standbys."""
        self.token_ids = list(prompt)
        self.hops: list[HopState] = []
        self.failovers = 0
        self.chain: Chain | None = None
        self._links = links
        self._tasks = tasks
        self._router = router
        self._limits = limits
        self._ends = ends
        self._terms = Terms(
            session=os.urandom(SESSION_BYTES),
            spec=spec,
            sampling=sampling,
            max_tokens=len(prompt) + max_new_tokens,
            has_local_ends=ends is not None,
        )
        self._standbys = Standbys(
            links,
            router,
            chunk_tokens=limits.chunk_tokens,
            open_timeout_s=limits.open_timeout_s,
        )
        self.inbox = Inbox(self._standbys, self.token_ids)
        """What links tell the session."""
        self._waiting = Waiting(self.inbox, self._standbys, router, limits)
        self._configuration: Configuration
        self._epoch = 0
        self._keeper: asyncio.Task[None] | None = None
        self._fed = 0
        self._has_run = False

    @property
    def id(self) -> bytes:
        """16 random bytes."""
        return self._terms.session

    @property
    def hedges(self) -> int:
        """How many steps standbys were asked to do as well."""
        return self._standbys.num_hedges

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close(wait=kind is None)

    # --- the main loop: one call, one token

    async def next_token(self) -> int:
        """Run the step that is due and return its token; also appended to ``token_ids``.

        Raises NoChain when some layers have nobody left, PromptTooLong when there is no room.
        """
        began = asyncio.get_running_loop().time()
        while True:
            try:
                self._make_way()
                if self.inbox.is_broken:
                    await self._mend(began)
                await self._feed()
                result = await self._waiting.result(self._configuration)
                token_id = await next_token(result, self._configuration, self._ends)
            except PeerError as error:
                self._blame(error)
            else:
                self.token_ids.append(token_id)
                self._standbys.on_token(len(self.token_ids))
                self._keep_standbys()
                return token_id

    async def _feed(self) -> None:
        """Send the first hop every token that it has not been sent, in chunks."""
        first = self.hops[0]
        while self._fed < len(self.token_ids):
            chunk = self.token_ids[self._fed : self._fed + self._limits.chunk_tokens]
            entry = await self._ends.embed(chunk, self._fed) if self._ends else int64(chunk)
            step = Step(
                session=self.id,
                layer=first.layer,
                epoch=self._configuration.epoch,
                position=self._fed,
                entry=entry,
            )
            first.send(step)
            self._fed += len(chunk)

    # --- failover

    def _blame(self, error: PeerError) -> None:
        """Note a failure; the next turn of the loop mends the chain."""
        log.warning("hop failed: position=%d error=%s", len(self.token_ids) - 1, error)
        self.inbox.is_broken = True
        if isinstance(error, Forgot):
            return
        for state in self.hops:
            state.is_lost = state.is_lost or state.peer == error.peer
        self._router.blame(error)

    def _make_way(self) -> None:
        """Hops that leave, or were outpaced, are replaced as soon as their standby is ready."""
        for index, state in enumerate(self.hops):
            if state.gives_way and self._standbys.is_ready(index):
                state.is_lost = self.inbox.is_broken = True

    async def _mend(self, began: float) -> None:
        """Configure a chain (the first one, or a mended one); raises NoChain or PeerError."""
        if asyncio.get_running_loop().time() - began > self._limits.mend_timeout_s:
            raise NoChain(f"no chain held for {self._limits.mend_timeout_s:g} s")
        await self._stop_keeper()
        for state in self.hops:
            state.is_lost = not state.is_usable
        chain = await self._find_chain()
        self._adopt(chain)
        self._epoch += 1
        self._configuration = Configuration(
            self._terms, self._epoch, chain, self.hops, self.token_ids
        )
        self.inbox.begin(self.hops, self._epoch)
        await self._configuration.apply(self._links, self._limits.open_timeout_s)
        self._waiting.expect(self.hops)
        self._fed = self.hops[0].held
        self.failovers += self._has_run
        self._has_run, self.inbox.is_broken = True, False

    async def _find_chain(self) -> Chain:
        if self.chain is None:
            return await self._router.chain(self._terms.max_tokens)
        self._promote()
        lost = frozenset(index for index, state in enumerate(self.hops) if state.is_lost)
        if not lost:
            return self.chain
        return await self._router.mend(self.chain, lost, self._terms.max_tokens)

    def _promote(self) -> None:
        """Put ready standbys in the places of lost hops."""
        for index, state in enumerate(self.hops):
            if not state.is_lost or self.chain is None:
                continue
            neighbours = {other.peer for other in self.hops[max(0, index - 1) : index + 2]}
            standby = self._standbys.promote(index, neighbours)
            if standby is not None:
                self._send_close(state)
                self.hops[index] = standby
                hops = tuple(each.hop for each in self.hops)
                self.chain = Chain(hops, self.chain.numerics)

    def _adopt(self, chain: Chain) -> None:
        """Keep the states of surviving hops; free those that are no longer needed."""
        kept = {(s.peer, s.hop.layers): s for s in self.hops if not s.is_lost}
        states = [kept.get((hop.peer, hop.layers)) or HopState(hop) for hop in chain.hops]
        for state, hop in zip(states, chain.hops, strict=True):
            state.hop = hop
        for state in self.hops:
            if state not in states:
                self._send_close(state)
        self.chain, self.hops = chain, states

    # --- standbys

    def _keep_standbys(self) -> None:
        if self._keeper is None:
            now = self._configuration
            if self._limits.has_standbys:
                work = self._standbys.run(now)
            else:
                work = keep_warm(now, self._links, self._router)
            self._keeper = self._tasks.start(work, name="standbys")

    async def _stop_keeper(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])

    # --- closing

    async def _close(self, *, wait: bool) -> None:
        """Free every hop at once; with ``wait``, hear what the session has cost each."""
        await self._stop_keeper()
        if self._has_run:
            self._standbys.close(self._configuration)
        replies = []
        for state in self.hops:
            state.is_closing = True
            if state.is_usable:
                replies.append(state.expect_reply())
            self._send_close(state)
        if wait and replies:
            await asyncio.wait(replies, timeout=self._limits.close_timeout_s)
        for reply in replies:
            reply.cancel()

    def _send_close(self, state: HopState) -> None:
        with contextlib.suppress(PeerLost):
            state.send(Close(session=self.id, layer=state.layer))
