"""One generation through a chain of peers; survives the loss of any of them.

The client's token list is the truth: a token enters it once, in order. Everything else (epoch,
chain, what each hop holds) can be lost and is rebuilt from it and from the hops' journals.

Failover, in `_mend`: raise the epoch; ask the router for a mended chain; open the new hops and
reroute the surviving ones, **receivers before senders** (a hop that replays its journal is told
last, so that whoever it sends to already knows the new configuration); go on feeding from where
the first hop is. The step in flight is simply fed again: a step truncates to its position.
"""

from __future__ import annotations

import asyncio
import logging
import os

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from p2pnode.errors import (
    NoChain,
    PeerError,
    PeerFault,
    PeerLost,
    PeerMisbehaved,
    PeerRefused,
    PeerTimeout,
)
from p2pnode.net.link import Link
from p2pnode.net.links import Links
from p2pnode.pipeline.hops import HopState, positions
from p2pnode.pipeline.patience import Patience
from p2pnode.tasks import all_of
from p2pnode.types import Chain, Hop, ModelSpec, PeerId, Sampling, Tensor
from p2pnode.wire.messages import (
    SESSION_BYTES,
    Close,
    Closed,
    Fault,
    Open,
    Opened,
    Progress,
    Refused,
    Reroute,
    Rerouted,
    Result,
    Step,
)

log = logging.getLogger(__name__)


class Router(Protocol):
    """Finds chains and remembers what went wrong with whom."""

    async def chain(self, num_tokens: int) -> Chain:
        """A chain with room for so many tokens; raises NoChain, PromptTooLong."""
        ...

    async def mend(self, chain: Chain, lost: frozenset[int], num_tokens: int) -> Chain:
        """The chain with the hops at these indexes replaced; raises NoChain."""
        ...

    def blame(self, error: PeerError, reporter: PeerId | None) -> None:
        """Remember a failure; ``reporter`` is the peer that could not reach it, if one told us."""
        ...


class Ends(Protocol):
    """Embedding, head and sampling, for a client that keeps the token ids to itself."""

    async def embed(self, token_ids: list[int], position: int) -> Tensor:
        """[tokens] -> hidden [tokens, hidden_size]."""
        ...

    async def choose(self, hidden: Tensor, sampling: Sampling, token_ids: list[int]) -> int:
        """The next token after ``token_ids`` from the last row of hidden."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionLimits:
    """The numbers that a session needs."""

    chunk_tokens: int
    open_timeout_s: float
    step_timeout_s: float
    step_floor_s: float
    mend_timeout_s: float
    close_timeout_s: float


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
        self.id = os.urandom(SESSION_BYTES)
        self.token_ids = list(prompt)
        self.hops: list[HopState] = []
        self.failovers = 0
        self.chain: Chain | None = None
        self._links = links
        self._router = router
        self._spec = spec
        self._limits = limits
        self._sampling = sampling
        self._max_tokens = len(prompt) + max_new_tokens
        self._ends = ends
        self._epoch = 0
        self._fed = 0
        self._is_broken = True
        self._patience = Patience(floor_s=limits.step_floor_s, ceiling_s=limits.step_timeout_s)
        self._moved_at = 0.0
        self._result: asyncio.Future[Result] | None = None

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
                token_id = await self._token_of(result)
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
            if self._ends is not None:
                entry = await self._ends.embed(chunk, self._fed)
            else:
                entry = _int64(chunk)
            step = Step(
                session=self.id,
                layer=first.layer,
                epoch=self._epoch,
                position=self._fed,
                entry=entry,
            )
            self._link_of(first).send(step)
            self._fed += len(chunk)

    async def _wait_for_result(self, num_fed: int) -> Result:
        """The output of the last token; raises the PeerError that stands in its way."""
        loop = asyncio.get_running_loop()
        result = self._result = loop.create_future()
        lost = next((state for state in self.hops if not state.is_usable), None)
        if lost is not None:
            raise PeerLost(lost.peer, "its link is gone")
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

    async def _token_of(self, result: Result) -> int:
        last = self.hops[-1].peer
        if self._ends is not None:
            if result.hidden is None or result.hidden.shape[-1] != self._spec.hidden_size:
                raise PeerMisbehaved(last, "answered without hidden states")
            return await self._ends.choose(result.hidden, self._sampling, self.token_ids)
        if len(result.token_ids) != 1 or result.token_ids[0] >= self._spec.vocab_size:
            raise PeerMisbehaved(last, f"answered {len(result.token_ids)} tokens, or no such token")
        return result.token_ids[0]

    def _silence(self, patience_s: float) -> PeerError:
        """Who is to blame that nothing moves: the first hop that lacks what is due."""
        due = len(self.token_ids)
        state = next((state for state in self.hops if state.held < due), self.hops[-1])
        what = f"no output of layers {state.hop.layers} for {patience_s:.1f} s"
        return PeerTimeout(state.peer, what)

    def _blame(self, error: PeerError, reporter: PeerId | None = None) -> None:
        """Note a failure; the next turn of the loop mends the chain."""
        log.warning(
            "hop failed: peer=%s position=%d error=%s",
            error.peer.short,
            len(self.token_ids) - 1,
            error,
        )
        guilty = [state for state in self.hops if state.peer == error.peer]
        for state in guilty:
            state.is_lost = True
        self._is_broken = True
        self._router.blame(error, reporter)

    # --- failover

    async def _mend(self, began: float) -> None:
        """Configure a chain (the first one, or a mended one); raises NoChain or PeerError."""
        loop = asyncio.get_running_loop()
        if loop.time() - began > self._limits.mend_timeout_s:
            raise NoChain(f"no chain held for {self._limits.mend_timeout_s:g} s")
        is_first = self.chain is None
        for state in self.hops:
            state.is_lost = state.is_lost or not state.is_usable
        chain = await self._find_chain()
        self._adopt(chain)
        self._epoch += 1
        try:
            async with asyncio.timeout(self._limits.open_timeout_s):
                await self._configure()
        except TimeoutError as error:
            silent = next((s for s in self.hops if s.reply and not s.reply.done()), self.hops[0])
            raise PeerTimeout(silent.peer, "did not answer an Open in time") from error
        self.failovers += not is_first
        self._is_broken = False

    async def _find_chain(self) -> Chain:
        if self.chain is None:
            return await self._router.chain(self._max_tokens)
        lost = frozenset(index for index, state in enumerate(self.hops) if state.is_lost)
        if not lost:
            return self.chain
        return await self._router.mend(self.chain, lost, self._max_tokens)

    def _adopt(self, chain: Chain) -> None:
        """Keep the states of surviving hops; free those that are no longer needed."""
        kept: dict[Hop, HopState] = {state.hop: state for state in self.hops if not state.is_lost}
        states = [kept.pop(hop, None) or HopState(hop) for hop in chain.hops]
        for state in kept.values():
            self._send_close(state)
        self.chain, self.hops = chain, states

    async def _configure(self) -> None:
        """Open new hops and reroute surviving ones: receivers before senders."""
        keep = positions(self.hops, len(self.token_ids))
        is_new = [state.link is None for state in self.hops]
        await self._connect()
        replays = [
            not is_new[index] and is_new[index + 1] for index in range(len(self.hops) - 1)
        ] + [False]
        first = [index for index, later in enumerate(replays) if not later]
        await self._ask({index: self._request(index, keep, is_new[index]) for index in first})
        for index in reversed([index for index, later in enumerate(replays) if later]):
            await self._ask({index: self._request(index, keep, False)})
        for state, held in zip(self.hops, keep, strict=True):
            state.held = held
        self._fed = keep[0]

    async def _connect(self) -> None:
        """Links to all hops, in parallel; raises the first PeerError."""

        async def connect(state: HopState) -> None:
            state.link = await self._links.connect(state.peer, state.hop.addresses)

        new = [state for state in self.hops if state.link is None]
        await all_of(*(connect(state) for state in new))

    def _request(self, index: int, keep: list[int], is_new: bool) -> Open | Reroute:
        """What to tell a hop: its place, its neighbours, and from where to send."""
        is_last = index == len(self.hops) - 1
        hop = self.hops[index].hop
        following = None if is_last else self.hops[index + 1].hop
        common: dict[str, Any] = {
            "session": self.id,
            "epoch": self._epoch,
            "previous": self.hops[index - 1].peer if index else None,
            "next": following.peer if following else None,
            "next_addresses": following.addresses if following else (),
            "send_from": len(self.token_ids) - 1 if is_last else keep[index + 1],
        }
        if not is_new:
            return Reroute(layer=hop.layers.start, position=keep[index], **common)
        samples = is_last and self._ends is None
        needs_tokens = samples and self._sampling.needs_tokens
        return Open(
            fingerprint=self._spec.fingerprint,
            numerics=self.chain.numerics if self.chain else "",
            layers=hop.layers,
            max_tokens=self._max_tokens,
            sampling=self._sampling if samples else None,
            token_ids=_int64(self.token_ids) if needs_tokens else None,
            **common,
        )

    async def _ask(self, requests: dict[int, Open | Reroute]) -> None:
        """Send the requests and wait for all answers; raises the first PeerError."""
        loop = asyncio.get_running_loop()
        waiting = []
        for index, request in requests.items():
            state = self.hops[index]
            state.reply = loop.create_future()
            self._link_of(state).send(request)
            waiting.append(self._answer(state, request))
        await all_of(*waiting)

    async def _answer(self, state: HopState, request: Open | Reroute) -> None:
        if state.reply is None:
            return
        answer = await state.reply
        if isinstance(answer, Refused):
            raise PeerRefused(state.peer, answer.reason[:300], answer.retry_after_s)
        if isinstance(answer, Rerouted) and isinstance(request, Reroute):
            if answer.position < request.position:
                what = f"holds {answer.position} tokens where it had said {request.position}"
                raise PeerFault(state.peer, what)
        elif not isinstance(answer, Opened):
            raise PeerMisbehaved(state.peer, f"answered with {type(answer).__name__}")

    # --- events of links

    def on_message(self, link: Link, message: Any) -> None:
        """A message of this session came; one of an older epoch is dropped."""
        if isinstance(message, Closed):
            state = self._state(link, message.layer)
            if state is not None and state.is_closing:
                state.cost(message)
                state.answer(message)
            return
        if message.epoch != self._epoch:
            return
        if isinstance(message, Result):
            self._on_result(link, message)
            return
        state = self._state(link, message.layer)
        if isinstance(message, Fault):
            self._on_fault(link, message)
        elif state is None:
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
        last = self.hops[-1] if self.hops else None
        if last is None or last.link is not link or result.position != len(self.token_ids) - 1:
            return
        for state in self.hops:
            state.held = result.position + 1
        if self._result is not None and not self._result.done():
            self._result.set_result(result)

    def _on_fault(self, link: Link, fault: Fault) -> None:
        """A hop cannot go on: it, or a neighbour that it names, has to be replaced."""
        members = {state.peer for state in self.hops}
        if link.peer not in members:
            return
        state = next((state for state in self.hops if state.layer == fault.layer), None)
        told = state.peer if state is not None else link.peer
        error: PeerError = PeerFault(told, f"{fault.fault}: {fault.detail[:200]}")
        reporter = None
        if fault.blamed in members and fault.blamed is not None:
            error, reporter = PeerLost(fault.blamed, f"{fault.fault}: {fault.detail[:200]}"), told
        if reporter is not None:
            self._router.blame(error, reporter)
        if state is not None:
            state.fail(error)
        self._fail_step(error)

    def _fail_step(self, error: PeerError) -> None:
        if self._result is not None and not self._result.done():
            self._result.set_exception(error)

    def _state(self, link: Link, layer: int) -> HopState | None:
        for state in self.hops:
            if state.link is link and state.layer == layer:
                return state
        return None

    # --- closing

    async def _close(self, *, wait: bool) -> None:
        """Free every hop at once; with ``wait``, hear what the session has cost each."""
        loop = asyncio.get_running_loop()
        for state in self.hops:
            state.reply, state.is_closing = loop.create_future(), True
            self._send_close(state)
        replies = [state.reply for state in self.hops if state.is_usable and state.reply]
        if wait and replies:
            await asyncio.wait(replies, timeout=self._limits.close_timeout_s)
        for state in self.hops:
            if state.reply is not None:
                state.reply.cancel()

    def _send_close(self, state: HopState) -> None:
        if state.link is not None and state.link.is_open:
            state.link.send(Close(session=self.id, layer=state.layer))

    def _link_of(self, state: HopState) -> Link:
        if state.link is None or not state.link.is_open:
            raise PeerLost(state.peer, "its link is gone")
        return state.link


def _int64(token_ids: list[int]) -> Tensor:
    data = memoryview(bytearray(8 * len(token_ids))).cast("q")
    for index, token_id in enumerate(token_ids):
        data[index] = token_id
    return Tensor("int64", (len(token_ids),), data.cast("B"))


