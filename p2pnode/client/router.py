"""Finds chains for sessions, and remembers across sessions what went wrong with whom."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from p2pnode.client.experience import Experience as Experience
from p2pnode.client.peers import PeerSeen, peers_seen
from p2pnode.config import ClientConfig
from p2pnode.errors import BadRequest, NoChain, PeerError, PeerRefused, PromptTooLong
from p2pnode.net.links import Links
from p2pnode.routing.chain import choose_chain, choose_standby, mend_chain, predicted
from p2pnode.routing.explain import Explanation, explain
from p2pnode.routing.needs import Held, Link, Needs
from p2pnode.routing.prefill import chunk_tokens
from p2pnode.routing.steps import usual_s
from p2pnode.routing.trouble import is_full
from p2pnode.swarm.view import SwarmReader
from p2pnode.types import Chain, Coordinate, Hop, LayerRange, ModelSpec, PeerId, SwarmView
from p2pnode.wire.messages import CONTROL

RETRY_INTERVAL_S = 0.5
STALE_S = 20.0
"""A chain may be mended by a reading of the directory that is so old: a failover is in a hurry."""
STANDBY_STALE_S = 5.0
USUAL_FOR_S = 1.0
"""How long what is usual is taken as known: it is asked for in each step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """How fast the caller wants the chain to be predicted (None: as fast as there is), and why."""

    max_token_s: float | None = None
    min_tokens_per_s: float | None = None
    explains: bool = False
    """Whether to remember what a choice was made from."""

    def __post_init__(self) -> None:
        for name in ("max_token_s", "min_tokens_per_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BadRequest(f"{name} must be above 0, not {value:g}")

    @classmethod
    def of(cls, config: ClientConfig) -> Self:
        """What a client's settings say of it."""
        return cls(
            max_token_s=config.max_token_s,
            min_tokens_per_s=config.min_tokens_per_s,
            explains=config.explains,
        )


class SwarmRouter:
    """A `Router` over the directory and gossip, for one model and one session."""

    def __init__(
        self,
        *,
        reader: SwarmReader,
        links: Links,
        spec: ModelSpec,
        experience: Experience,
        patience_s: float,
        local_head: bool,
        has_ring: bool = False,
        wishes: Wishes = Wishes(),
        held: Held | None = None,
        here: Callable[[], Coordinate] = Coordinate,
        rtt_s: Callable[[PeerId], float | None] = lambda peer: None,
    ) -> None:
        """has_ring: whether tokens come round without us, so that our own place hardly matters
        held: what earlier sessions have left of the prompt

        here, rtt_s: our place in network space and the round trips to peers, as gossip has
        measured them; of the other peers, the last heartbeat's is taken
        """
        self._reader = reader
        self._links = links
        self._spec = spec
        self._experience = experience
        self._patience_s = patience_s
        self._local_head = local_head
        self._has_ring = has_ring
        self._wishes = wishes
        self._held = held or Held()
        self._here = here
        self._rtt_s = rtt_s
        self._refusal = ""
        """What a peer has last said when it did not take this session."""
        self._asked: tuple[SwarmView, Needs, int] | None = None
        self._predicted: dict[tuple[PeerId, bool], tuple[Link, float]] = {}
        self._usual: dict[tuple[LayerRange, int], tuple[float, float | None]] = {}

    async def chain(self, num_tokens: int) -> Chain:
        """See `Router.chain`; raises NoChain also when every chain is slower than asked for."""
        return await self._find(num_tokens, None, frozenset())

    async def mend(self, chain: Chain, lost: frozenset[int], num_tokens: int) -> Chain:
        """See `Router.mend`."""
        return await self._find(num_tokens, chain, lost)

    async def standby(self, chain: Chain, index: int, num_tokens: int) -> Hop | None:
        """See `Router.standby`."""
        view = await self._reader.view(max_age_s=STANDBY_STALE_S)
        return choose_standby(view, self._needs(view, num_tokens), chain, index)

    def chunk_tokens(self, chain: Chain, num_tokens: int) -> int | None:
        """See `Router.chunk_tokens`."""
        return chunk_tokens(self._reader.known(), chain, self._spec.hidden_size, num_tokens)

    def usual_s(self, layers: LayerRange, num_tokens: int) -> float | None:
        """See `Router.usual_s`."""
        now = asyncio.get_running_loop().time()
        at, value = self._usual.get((layers, num_tokens), (float("-inf"), None))
        if now - at > USUAL_FOR_S:
            self._usual = {key: each for key, each in self._usual.items() if each[0] == now}
            value = usual_s(self._reader.known(), self._spec.fingerprint, layers, num_tokens)
            self._usual[layers, num_tokens] = (now, value)
        return value

    def measured(self, peer: PeerId, step_s: float, *, is_handed: bool) -> None:
        """See `Router.measured`."""
        now = asyncio.get_running_loop().time()
        if (peer, is_handed) in self._predicted:
            link, predicted_s = self._predicted[peer, is_handed]
            own_s = step_s + self._here_s(link)
            self._experience.took(link, own_s - predicted_s, now)
        if is_handed:  # as if we had sent it: it is compared with its other steps
            step_s += (self._measured_rtt_s(peer) or 0.0) / 2.0
        self._experience.reputation.measured(peer, step_s, now)

    def blame(self, error: PeerError) -> None:
        """See `Router.blame`."""
        now = asyncio.get_running_loop().time()
        is_linked = self._links.get(error.peer) is not None
        if isinstance(error, PeerRefused):
            self._refusal = str(error)
        self._experience.blame(error, self._reader.known(), now, is_linked=is_linked)

    def explain(self) -> Explanation | None:
        """Why the chain of this session was chosen; None before that, when nobody wishes to know
        it, and of a chain that was mended since."""
        if self._asked is None:
            return None
        view, needs, seed = self._asked
        return explain(view, needs, rng=random.Random(seed))

    def peers_seen(self) -> tuple[PeerSeen, ...]:
        """What is remembered of the peers that were used; nothing when nobody wishes to know."""
        if not self._wishes.explains:
            return ()
        now = asyncio.get_running_loop().time()
        return peers_seen(self._experience.reputation, self._reader.known(), now)

    async def _find(self, num_tokens: int, chain: Chain | None, lost: frozenset[int]) -> Chain:
        """Try what is known, then read anew for a while: the swarm may be healing itself."""
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + self._patience_s
        view = await self._reader.view(max_age_s=RETRY_INTERVAL_S if chain is None else STALE_S)
        is_fresh = chain is None
        while True:
            needs = self._needs(view, num_tokens)
            try:
                return self._choose(view, needs, chain, lost)
            except (NoChain, PromptTooLong) as error:
                # Worth waiting for: a peer that said when to ask again or may be heard of again, or
                # a swarm that was whole.
                experience = self._experience
                is_hopeful = chain is not None or bool(experience.refused or experience.lost)
                is_hopeful = is_hopeful or is_full(view, needs)
                if is_fresh and (not is_hopeful or clock() > give_up_at):
                    if self._refusal and isinstance(error, NoChain):
                        raise NoChain(f"{error}; {self._refusal}", error.missing) from error
                    raise
            if is_fresh:
                await asyncio.sleep(RETRY_INTERVAL_S)
            view = await self._reader.view(max_age_s=0.0)
            is_fresh = True

    def _choose(
        self, view: SwarmView, needs: Needs, chain: Chain | None, lost: frozenset[int]
    ) -> Chain:
        """Choose or mend, and remember what was predicted."""
        seed = self._experience.rng.getrandbits(32)
        draw = random.Random(seed)
        if chain is None:
            found = choose_chain(view, needs, rng=draw)
            self._asked = (view, needs, seed) if self._wishes.explains else None
        else:
            found = mend_chain(view, needs, chain, lost, rng=draw)
            self._asked = None
        self._experience.begun(found, asyncio.get_running_loop().time())
        self._predicted = _predictions(view, needs, found)
        return found

    def _needs(self, view: SwarmView, num_tokens: int) -> Needs:
        now = asyncio.get_running_loop().time()
        experience, spec = self._experience, self._spec
        peers = [a.peer for a in view.announcements]
        experience.reputation.saw(peers, now)
        rtts_s = {peer: self._measured_rtt_s(peer) for peer in peers}
        return Needs(
            model=spec.name,
            fingerprint=spec.fingerprint,
            num_layers=spec.num_layers,
            num_tokens=num_tokens,
            hidden_size=spec.hidden_size,
            local_head=self._local_head,
            has_ring=self._has_ring,
            max_token_s=self._wishes.max_token_s,
            min_tokens_per_s=self._wishes.min_tokens_per_s,
            avoid=experience.avoid(view, now),
            rtts_s={peer: rtt_s for peer, rtt_s in rtts_s.items() if rtt_s},
            coordinate=self._here(),
            risk_s=experience.reputation.risk_s(peers, now),
            measured_s=experience.measured_s(now),
            unseen_sessions=experience.unseen(now),
            held=self._held,
        )

    def _here_s(self, link: Link) -> float:
        """The way here from its first end, less that from its second; 0 where they are not known.

        A step is measured from when we heard of the one to when we hear of the other.
        """
        before, peer = link
        first_s = 0.0 if before is None else self._measured_rtt_s(before)
        second_s = self._measured_rtt_s(peer)
        return 0.0 if first_s is None or second_s is None else (first_s - second_s) / 2.0

    def _measured_rtt_s(self, peer: PeerId) -> float | None:
        link = self._links.get(peer, CONTROL)
        return self._rtt_s(peer) or (link.rtt_s if link else None)


def _predictions(
    view: SwarmView, needs: Needs, chain: Chain
) -> dict[tuple[PeerId, bool], tuple[Link, float]]:
    """By hop, and whether it is handed its tokens in a ring: the link to it and the predicted time.

    Of peers that are in the chain once. Without the corrections of earlier measurements: they are
    what the next ones are compared with.
    """
    peers = [hop.peer for hop in chain.hops]
    announced = {a.peer for a in view.announcements}
    found: dict[tuple[PeerId, bool], tuple[Link, float]] = {}
    for is_handed in (False, True):
        asked = replace(needs, measured_s={}, has_ring=is_handed)
        terms = predicted(view, asked, chain).terms
        before = [peers[-1] if is_handed else None, *peers[:-1]]
        for index, peer in enumerate(peers[:1] if is_handed else peers):
            if peers.count(peer) == 1 and peer in announced:
                found[peer, is_handed] = ((before[index], peer), terms[index].time_s)
    return found
