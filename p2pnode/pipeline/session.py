"""One generation through a chain of peers; survives the loss of any of them.

The client's token list is the truth: a token enters it once, in order. Everything else (epoch,
chain, what each hop holds) can be lost and is rebuilt from it and from the hops' journals.

Failover, in `_mend`: raise the epoch, ask the router for a mended chain, configure it (see
`pipeline.configure`), and go on feeding from where the first hop is. The step in flight is simply
fed again: a step truncates to its position.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from types import TracebackType
from typing import Any, Self

from p2pnode.errors import NoChain, PeerError, PeerFault, PeerLost, PeerMisbehaved, PeerTimeout
from p2pnode.net.link import Link
from p2pnode.net.links import Links
from p2pnode.pipeline.answers import next_token
from p2pnode.pipeline.configure import Configuration, Terms, int64
from p2pnode.pipeline.hops import ANSWERS, HopState
from p2pnode.pipeline.patience import Patience
from p2pnode.pipeline.roles import Accused, Ends, Router, SessionLimits
from p2pnode.types import Chain, Hop, ModelSpec, Sampling
from p2pnode.wire.messages import SESSION_BYTES, Close, Closed, Fault, Progress, Result, Step

log = logging.getLogger(__name__)


class ChainSession:
    """Feeds tokens to a chain and receives the next ones. ``async with`` frees every hop."""

    def __init__(
        self,
        *,
        links: Links,
        router: Router,
        spec: ModelSpec,
        limits: SessionLimits,
        sampling: Sampling,
        prompt: list[int],
        max_new_tokens: int,
        ends: Ends | None = None,
    ) -> None:
        self.token_ids = list(prompt)
        self.hops: list[HopState] = []
        self.failovers = 0
        self.chain: Chain | None = None
        self._links = links
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
        self._epoch = 0
        self._configuration: Configuration
        self._fed = 0
        self._has_run = False
        self._is_broken = True
        self._patience = Patience(floor_s=limits.step_floor_s, ceiling_s=limits.step_timeout_s)
        self._moved_at = 0.0
        self._result: asyncio.Future[Result] | None = None
        self._trouble: PeerError | None = None
        """Happened while nobody waited for a result."""

    @property
    def id(self) -> bytes:
        """16 random bytes."""
        return self._terms.session

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
        clock = asyncio.get_running_loop().time
        began = clock()
        while True:
            try:
                if self._is_broken:
                    await self._mend(began)
                num_fed = len(self.token_ids) - self._fed
                await self._feed()
                result = await self._wait_for_result(num_fed)
                token_id = await next_token(result, self._configuration, self._ends)
            except PeerError as error:
                self._blame(error)
            else:
                if num_fed == 1:
                    self._patience.note(clock() - began)
                self.token_ids.append(token_id)
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
                epoch=self._epoch,
                position=self._fed,
                entry=entry,
            )
            first.send(step)
            self._fed += len(chunk)

    async def _wait_for_result(self, num_fed: int) -> Result:
        """The output of the last token; raises the PeerError that stands in its way."""
        loop = asyncio.get_running_loop()
        if self._trouble is not None:
            raise self._trouble
        for state in self.hops:
            if not state.is_usable:
                raise PeerLost(state.peer, "its link is gone")
        result: asyncio.Future[Result] = loop.create_future()
        self._result = result
        self._moved_at = loop.time()
        patience_s = self._patience.seconds(num_fed)
        try:
            while not result.done():
                left_s = self._moved_at + patience_s - loop.time()
                if left_s <= 0:
                    raise self._silence(patience_s)
                await asyncio.wait([result], timeout=left_s)
            return result.result()
        finally:
            self._result = None

    def _silence(self, patience_s: float) -> PeerError:
        """Who is to blame that nothing moves: the first hop that lacks what is due."""
        due = len(self.token_ids)
        state = next((state for state in self.hops if state.held < due), self.hops[-1])
        what = f"no output of layers {state.hop.layers} for {patience_s:.1f} s"
        return PeerTimeout(state.peer, what)

    def _blame(self, error: PeerError) -> None:
        """Note a failure; the next turn of the loop mends the chain."""
        position = len(self.token_ids) - 1
        log.warning("hop failed: position=%d error=%s", position, error)
        for state in self.hops:
            state.is_lost = state.is_lost or state.peer == error.peer
        self._is_broken = True
        self._router.blame(error)

    # --- failover

    async def _mend(self, began: float) -> None:
        """Configure a chain (the first one, or a mended one); raises NoChain or PeerError."""
        if asyncio.get_running_loop().time() - began > self._limits.mend_timeout_s:
            raise NoChain(f"no chain held for {self._limits.mend_timeout_s:g} s")
        for state in self.hops:
            state.is_lost = not state.is_usable
        chain = await self._find_chain()
        self._adopt(chain)
        self._epoch += 1
        self._trouble = None
        self._configuration = Configuration(
            self._terms, self._epoch, chain.numerics, self.hops, self.token_ids
        )
        await self._configuration.apply(self._links, self._limits.open_timeout_s)
        self._fed = self.hops[0].held
        self.failovers += self._has_run
        self._has_run, self._is_broken = True, False

    async def _find_chain(self) -> Chain:
        if self.chain is None:
            return await self._router.chain(self._terms.max_tokens)
        lost = frozenset(index for index, state in enumerate(self.hops) if state.is_lost)
        if not lost:
            return self.chain
        return await self._router.mend(self.chain, lost, self._terms.max_tokens)

    def _adopt(self, chain: Chain) -> None:
        """Keep the states of surviving hops; free those that are no longer needed."""
        kept: dict[Hop, HopState] = {state.hop: state for state in self.hops if not state.is_lost}
        states = [kept.pop(hop) if hop in kept else HopState(hop) for hop in chain.hops]
        for state in kept.values():
            self._send_close(state)
        self.chain, self.hops = chain, states

    # --- events of links

    def on_message(self, link: Link, message: Any) -> None:
        """A message of this session; raises PeerMisbehaved for a kind that no node sends."""
        if isinstance(message, Closed):
            state = self._state(link, message.layer)
            if state is not None and state.is_closing:
                state.cost(message)
                state.answer(message)
        elif not isinstance(message, ANSWERS):
            raise PeerMisbehaved(link.peer, f"sent a client a {type(message).__name__}")
        elif message.epoch != self._epoch:
            return  # late
        elif isinstance(message, Result):
            self._on_result(link, message)
        elif isinstance(message, Fault):
            self._on_fault(link, message)
        elif (state := self._state(link, message.layer)) is None:
            return
        elif isinstance(message, Progress):
            state.held = max(state.held, min(message.position, len(self.token_ids)))
            state.cost(message)
            self._moved_at = asyncio.get_running_loop().time()
        else:
            state.answer(message)

    def on_lost(self, link: Link, error: PeerError) -> None:
        """A link has ended; matters if a hop of ours was at its other end."""
        for state in self.hops:
            if state.link is link:
                state.is_lost = self._is_broken = True
                state.fail(error)
                self._fail_step(error)

    def _on_result(self, link: Link, result: Result) -> None:
        if self.hops[-1].link is not link or result.position != len(self.token_ids) - 1:
            return
        for state in self.hops:
            state.held = result.position + 1
        if self._result is not None and not self._result.done():
            self._result.set_result(result)

    def _on_fault(self, link: Link, fault: Fault) -> None:
        """A hop cannot go on: it, or a neighbour that it names, has to be replaced."""
        members = {state.peer for state in self.hops}
        state = next((state for state in self.hops if state.layer == fault.layer), None)
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

    def _state(self, link: Link, layer: int) -> HopState | None:
        for state in self.hops:
            if state.link is link and state.layer == layer:
                return state
        return None

    # --- closing

    async def _close(self, *, wait: bool) -> None:
        """Free every hop at once; with ``wait``, hear what the session has cost each."""
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
