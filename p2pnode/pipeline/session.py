"""One generation through a chain of peers; survives the loss of any of them.

The client's token list is the truth: a token enters it once, in order. Everything else (epoch,
chain, guesses, what each hop holds) can be lost and is rebuilt from it and from the hops' journals.

Failover, in `_mend`: raise the epoch, put a ready standby in the place of a lost hop or ask the
router for a mended chain, configure it (see `pipeline.configure`), and go on feeding from where
the first hop is. The step in flight is simply fed again: a step truncates to its position.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from p2pnode.errors import BadConstraint, NoChain, PeerError, PeerLost
from p2pnode.net.links import Links
from p2pnode.pipeline.answers import mean_of, next_tokens
from p2pnode.pipeline.closing import close_all, cut_all, free
from p2pnode.pipeline.configure import Configuration, Terms, int64
from p2pnode.pipeline.helpers import Helpers
from p2pnode.pipeline.hops import HopState, adopted
from p2pnode.pipeline.inbox import Inbox
from p2pnode.pipeline.line import Line
from p2pnode.pipeline.roles import Ends, Forgot, Router, SessionLimits, Unfollowed
from p2pnode.pipeline.spares import keep_warm
from p2pnode.pipeline.speculation import Drafter, Speculation
from p2pnode.pipeline.standbys import Standbys
from p2pnode.pipeline.waiting import Waiting
from p2pnode.tasks import Tasks
from p2pnode.types import Chain, Chosen, Tensor
from p2pnode.wire.messages import Result, Step
from p2pnode.wire.pages import names_of

log = logging.getLogger(__name__)

T = TypeVar("T")


class ChainSession:
    """Feeds tokens to a chain and receives the next ones. ``async with`` frees every hop."""

    def __init__(
        self,
        *,
        links: Links,
        tasks: Tasks,
        router: Router,
        limits: SessionLimits,
        terms: Terms,
        token_ids: list[int],
        ends: Ends | None = None,
        drafter: Drafter | None = None,
    ) -> None:
        """tasks: owns the tasks that keep standbys and guess; drafter: None does not guess
        token_ids: the prompt, and the answer as far as it is there
        """
        self.line = Line(token_ids)
        self.hops: list[HopState] = []
        self.failovers = 0
        self.chain: Chain | None = None
        self._links = links
        self._router = router
        self._limits = limits
        self._ends = ends
        self._terms = terms
        self.num_cached = 0
        """Tokens of the prompt that the hops held when the session began."""
        self.kept_pages = b""
        """Names of what the hops were asked to keep when the session ended."""
        self._standbys = Standbys(links, router, limits)
        self.inbox = Inbox(self._standbys, self.line)
        """What links tell the session."""
        self.speculation: Speculation | None = None
        """None without a drafter, and where the client keeps embedding and head."""
        if drafter is not None and ends is None:
            self.speculation = Speculation(self.line, drafter, max_tokens=self._terms.max_tokens)
            self.inbox.on_computed = self.speculation.policy.computed
        self.waiting = Waiting(self.inbox, self._standbys, router, limits)
        self._configuration: Configuration
        self._chunk_tokens = limits.chunk_tokens
        self._epoch = 0
        self._helpers = Helpers(tasks)
        self._num_given = len(token_ids)
        self._chosen: deque[Chosen] = deque()
        """Known, and not returned yet."""
        self._has_run = False

    @property
    def id(self) -> bytes:
        """16 random bytes."""
        return self._terms.session

    @property
    def token_ids(self) -> list[int]:
        """The prompt, and all tokens that `next_token` has returned."""
        return self.line.tokens[: self._num_given]

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

    async def next_token(self) -> Chosen:
        """The next token of the answer, after as many steps as that takes.

        Raises NoChain when some layers have nobody left, PromptTooLong when there is no room,
        BadConstraint when the one that the caller has set cannot be followed any further.
        """
        while not self._chosen:
            self._learn(await self._ask(partial(next_tokens, ends=self._ends)))
            self._start_helpers()
        self._num_given += 1
        return self._chosen.popleft()

    async def mean(self) -> tuple[float, ...]:
        """In a session that pools: the mean of all rows after the final norm. Raises NoChain."""
        return await self._ask(mean_of)

    async def _ask(self, read: Callable[[Result, Configuration], Awaitable[T]]) -> T:
        """What the output of the last known token says; the chain is mended until it comes."""
        began = asyncio.get_running_loop().time()
        while True:
            try:
                self._make_way()
                if self.inbox.is_broken:
                    await self._mend(began)
                await self._feed()
                result = await self.waiting.result(self._configuration)
                return await read(result, self._configuration)
            except PeerError as error:
                self._blame(error)

    async def _feed(self) -> None:
        """Send the first hop every known token that it has not been sent, in chunks."""
        while chunk := self.line.unsent(self._chunk_tokens):
            entry = await self._ends.embed(chunk, self.line.sent) if self._ends else int64(chunk)
            self._send(entry)

    def _guess(self, guesses: list[int]) -> None:
        """Send guesses behind the known tokens; all those were sent."""
        self.line.guesses += guesses
        self._send(int64(guesses))

    def _send(self, entry: Tensor) -> None:
        """The next step of the line, to the first hop."""
        line, first = self.line, self.hops[0]
        step = Step(
            session=self.id,
            layer=first.layer,
            epoch=self._epoch,
            branch=line.branch,
            position=line.sent,
            num_guessed=len(line.guesses),
            entry=entry,
        )
        first.send(step)
        line.fly(entry.shape[0], asyncio.get_running_loop().time())

    def _learn(self, answered: Sequence[Chosen]) -> None:
        """Take in the next token, and those after it while the guesses for them were right."""
        for chosen in answered:
            is_right = self.line.confirm(chosen.token_id)
            self._chosen.append(chosen)
            num_tokens = len(self.line.tokens)
            self._standbys.on_token(num_tokens)
            if self.speculation is not None:
                self.speculation.policy.told(is_right=is_right)
            if is_right is False:
                self._turn()
            if not is_right or num_tokens == self._terms.max_tokens:
                break
        self.inbox.learned()

    def _turn(self) -> None:
        """Guesses were wrong: tell all hops, whom the next step reaches later, and send that."""
        line = self.line
        cut_all(self.hops, self.id, epoch=self._epoch, branch=line.branch, position=line.sent)
        if self.speculation is not None and len(line.tokens) < self._terms.max_tokens:
            with contextlib.suppress(PeerLost):  # the main loop hears of it, too
                self._send(int64(line.unsent(1)))

    # --- failover

    def _blame(self, error: PeerError) -> None:
        """Note a failure; the next turn of the loop mends the chain."""
        log.warning("hop failed: position=%d error=%s", len(self.line.tokens) - 1, error)
        self.inbox.is_broken = True
        if isinstance(error, Unfollowed) and self._terms.sampling.constraint:
            raise BadConstraint(str(error)) from error
        if isinstance(error, Forgot):
            return
        for state in self.hops:
            state.is_lost = state.is_lost or state.peer == error.peer
        self._router.blame(error)

    def _make_way(self) -> None:
        """Hops that leave, or were outpaced, are replaced as soon as their standby is ready."""
        hops, num_tokens = list(self.hops), len(self.line.tokens)
        for index, state in enumerate(self.hops):
            if state.gives_way and self._standbys.can_relieve(hops, index, num_tokens):
                state.is_lost = self.inbox.is_broken = True
                hops[index] = self._standbys.states[index]

    async def _mend(self, began: float) -> None:
        """Configure a chain (the first one, or a mended one); raises NoChain or PeerError."""
        if asyncio.get_running_loop().time() - began > self._limits.mend_timeout_s:
            raise NoChain(f"no chain held for {self._limits.mend_timeout_s:g} s")
        await self._helpers.stop()
        for state in self.hops:
            state.is_lost = not state.is_usable
        chain = await self._find_chain()
        before, self.hops, self.chain = self.hops, adopted(self.hops, chain), chain
        for state in before:
            if state not in self.hops:
                free(state, self.id)
        num_tokens = len(self.line.tokens)
        most = self._limits.chunk_tokens
        self._chunk_tokens = min(self._router.chunk_tokens(chain, num_tokens) or most, most)
        if self.inbox.is_ring_broken:
            self._terms = replace(self._terms, has_ring=False)
        self._epoch += 1
        self._configuration = Configuration(self._terms, self._epoch, chain, self.hops, self.line)
        self.inbox.begin(self.hops, self._epoch)
        branch = await self._configuration.apply(self._links, self._limits.open_timeout_s)
        self.waiting.expect(self.hops)
        has_ring = self._terms.closes_ring
        self.line.restart(self.hops[0].held, branch, has_ring=has_ring)
        if not self._has_run:
            self.num_cached = self.line.sent
        self.failovers += self._has_run
        self._has_run, self.inbox.is_broken = True, False

    async def _find_chain(self) -> Chain:
        if self.chain is None:
            return await self._router.chain(self._terms.max_tokens)
        for state in self._standbys.replace_lost(self.hops):
            free(state, self.id)
        self.chain = Chain(tuple(each.hop for each in self.hops), self.chain.numerics)
        lost = frozenset(index for index, state in enumerate(self.hops) if state.is_lost)
        if not lost:
            return self.chain
        return await self._router.mend(self.chain, lost, self._terms.max_tokens)

    # --- beside the main loop, within one epoch

    def _start_helpers(self) -> None:
        """Once a chain has answered: keep standbys, and guess."""
        if self._helpers.are_running:
            return
        now = self._configuration
        if self._limits.has_standbys:
            self._helpers.start("standbys", self._standbys.run(now))
        else:
            self._helpers.start("spares", keep_warm(now, self._links, self._router))
        if self.speculation is not None:
            self._helpers.start("speculation", self.speculation.run(self._guess, self.waiting))

    # --- closing

    async def _close(self, *, wait: bool) -> None:
        """Free every hop at once; with ``wait``, hear what the session has cost each."""
        try:
            await self._helpers.stop()
        except asyncio.CancelledError:
            await self._free_all(0.0)
            raise
        await self._free_all(self._limits.close_timeout_s if wait else 0.0)

    async def _free_all(self, within_s: float) -> None:
        if self._has_run:
            self._standbys.close(self._configuration)
        if not self.inbox.is_broken:
            settled = self.line.tokens[: self.line.num_settled]
            self.kept_pages = names_of(self._terms.page_key, settled)
        await close_all(self.hops, self.id, pages=self.kept_pages, within_s=within_s)
