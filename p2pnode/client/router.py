"""Finds chains for sessions, and remembers across sessions what went wrong with whom."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from p2pnode.errors import (
    NoChain,
    PeerError,
    PeerFault,
    PeerRefused,
    PeerTimeout,
    PromptTooLong,
)
from p2pnode.net.links import Links
from p2pnode.pipeline.roles import Accused
from p2pnode.routing.chain import Avoid, Needs, choose_chain, mend_chain
from p2pnode.swarm.view import SwarmReader
from p2pnode.types import Chain, ModelSpec, PeerId, SwarmView
from p2pnode.wire.messages import CONTROL

SLOW_FOR_S = 30.0
LINK_BROKEN_FOR_S = 60.0
REFUSED_FOR_S = 10.0
MIN_REFUSED_FOR_S = 1.0
MAX_REFUSED_FOR_S = 60.0
"""Whatever the peer says: it must not be asked in a loop, nor be lost for ever."""
RETRY_INTERVAL_S = 0.5


@dataclass(slots=True)
class Experience:
    """Failures of this client's sessions; each is forgiven when it may have passed.

    A peer that was lost is avoided until it announces itself anew.
    """

    lost: dict[PeerId, int] = field(default_factory=dict)
    """The sequence number of the announcement that turned out to be stale."""
    slow: dict[PeerId, float] = field(default_factory=dict)
    """Until when; so are the next two."""
    refused: dict[PeerId, float] = field(default_factory=dict)
    links: dict[tuple[PeerId, PeerId], float] = field(default_factory=dict)

    def avoid(self, view: SwarmView, now: float) -> Avoid:
        """What to avoid at this moment."""
        self.slow = {peer: until for peer, until in self.slow.items() if until > now}
        self.refused = {peer: until for peer, until in self.refused.items() if until > now}
        self.links = {pair: until for pair, until in self.links.items() if until > now}
        lost = {a.peer for a in view.announcements if self.lost.get(a.peer, -1) >= a.sequence}
        return Avoid(
            frozenset(lost | self.refused.keys()), frozenset(self.slow), frozenset(self.links)
        )


class SwarmRouter:
    """A `Router` over the directory, for one model."""

    def __init__(
        self,
        *,
        reader: SwarmReader,
        links: Links,
        spec: ModelSpec,
        experience: Experience,
        patience_s: float,
        local_head: bool,
    ) -> None:
        self._reader = reader
        self._links = links
        self._spec = spec
        self._experience = experience
        self._patience_s = patience_s
        self._local_head = local_head

    async def chain(self, num_tokens: int) -> Chain:
        """See `Router.chain`."""
        return await self._find(num_tokens, None, frozenset())

    async def mend(self, chain: Chain, lost: frozenset[int], num_tokens: int) -> Chain:
        """See `Router.mend`."""
        return await self._find(num_tokens, chain, lost)

    def blame(self, error: PeerError) -> None:
        """See `Router.blame`."""
        now = asyncio.get_running_loop().time()
        if isinstance(error, PeerRefused):
            wanted_s = error.retry_after_s or REFUSED_FOR_S
            for_s = min(max(wanted_s, MIN_REFUSED_FOR_S), MAX_REFUSED_FOR_S)
            self._experience.refused[error.peer] = now + for_s
        elif isinstance(error, Accused):
            for pair in ((error.reporter, error.peer), (error.peer, error.reporter)):
                self._experience.links[pair] = now + LINK_BROKEN_FOR_S
        elif self._may_recover(error):
            self._experience.slow[error.peer] = now + SLOW_FOR_S
        else:
            known = [a for a in self._reader.known().announcements if a.peer == error.peer]
            self._experience.lost[error.peer] = max((a.sequence for a in known), default=0)

    def _may_recover(self, error: PeerError) -> bool:
        """Whether it is still there, and slow, or has given up a session for the first time."""
        is_first_fault = isinstance(error, PeerFault) and error.peer not in self._experience.slow
        is_passing = isinstance(error, PeerTimeout) or is_first_fault
        return is_passing and self._links.get(error.peer) is not None

    async def _find(self, num_tokens: int, chain: Chain | None, lost: frozenset[int]) -> Chain:
        """Try what is known, then read anew for a while: the swarm may be healing itself."""
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + self._patience_s
        view = await self._reader.view(max_age_s=RETRY_INTERVAL_S if chain is None else 20.0)
        is_fresh = chain is None
        while True:
            needs = self._needs(view, num_tokens)
            try:
                if chain is None:
                    return choose_chain(view, needs)
                return mend_chain(view, needs, chain, lost)
            except (NoChain, PromptTooLong):
                # Worth waiting for: a peer that said when to ask again, or a swarm that was whole.
                is_hopeful = chain is not None or bool(self._experience.refused)
                if is_fresh and (not is_hopeful or clock() > give_up_at):
                    raise
            if is_fresh:
                await asyncio.sleep(RETRY_INTERVAL_S)
            view = await self._reader.view(max_age_s=0.0)
            is_fresh = True

    def _needs(self, view: SwarmView, num_tokens: int) -> Needs:
        now = asyncio.get_running_loop().time()
        links = {a.peer: self._links.get(a.peer, CONTROL) for a in view.announcements}
        return Needs(
            model=self._spec.name,
            fingerprint=self._spec.fingerprint,
            num_layers=self._spec.num_layers,
            num_tokens=num_tokens,
            avoid=self._experience.avoid(view, now),
            rtts_s={peer: link.rtt_s for peer, link in links.items() if link and link.rtt_s},
            local_head=self._local_head,
        )
