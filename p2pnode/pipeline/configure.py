"""Telling every hop of a chain its place in it, when a session begins and after a failure.

New hops are opened first, all at once, and waited for. Those that stay are then rerouted without
waiting: from any hop, steps of the new epoch may overtake the `Reroute` at another, which keeps
them until it comes. So a failover costs one round trip only where somebody new has to be asked,
and none where a standby is ready.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from p2pnode.errors import PeerMisbehaved, PeerRefused, PeerTimeout
from p2pnode.net.links import Links
from p2pnode.numerics import Numerics
from p2pnode.pipeline.hops import HopState, positions
from p2pnode.pipeline.line import Line
from p2pnode.tasks import all_of
from p2pnode.types import Chain, ModelSpec, Sampling, Tensor
from p2pnode.wire.messages import Open, Opened, Refused, Reroute
from p2pnode.wire.pages import tokens_named


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What stays the same in all configurations of a session."""

    session: bytes
    spec: ModelSpec
    sampling: Sampling
    max_tokens: int
    has_local_ends: bool
    page_key: bytes = b""
    """What pages are named with (`wire.pages`); empty: none are."""
    pages: bytes = b""
    """Names of the prompt's pages, which hops may hold from earlier sessions."""
    num_prompt: int = 0
    """Tokens before the answer."""
    pools: bool = False
    """Whether the mean of all rows is wanted, and no token."""
    has_ring: bool = True
    """Whether the last hop hands its tokens straight to the first one, where it chooses them."""

    @property
    def closes_ring(self) -> bool:
        """Whether there is a ring. A constraint ends, and its hop would run on into nothing."""
        chooses = not self.has_local_ends and not self.pools and not self.sampling.constraint
        return self.has_ring and chooses

    @property
    def needs_tokens(self) -> bool:
        """Whether the last hop must know all tokens to choose the next."""
        return self.sampling.needs_tokens and not self.has_local_ends


@dataclass(frozen=True, slots=True)
class Configuration:
    """One epoch of a session: its hops, and the tokens that were known when it began."""

    terms: Terms
    epoch: int
    chain: Chain
    hops: list[HopState]
    line: Line

    @property
    def token_ids(self) -> list[int]:
        """All tokens that are known; grows."""
        return self.line.tokens

    async def apply(self, links: Links, timeout_s: float) -> int:
        """Open the new hops and reroute the surviving ones; then ``held`` of all is what they keep.

        returns: the branch to begin with: 1 where a hop may hold more than it is to keep

        Raises the first PeerError that stands in the way. A surviving hop that cannot follow says
        so later (`check_rerouted`, or a `Fault`).
        """
        keep = positions(self.hops, 1 if self.terms.pools else len(self.token_ids))
        new = [index for index, hop in enumerate(self.hops) if not hop.is_open]
        # In a chain that others stay in, a new hop is told all by the one before it.
        pages = self.terms.pages if len(new) == len(self.hops) else b""
        for hop in self.hops:
            hop.expect_nothing()
        try:
            async with asyncio.timeout(timeout_s):
                await all_of(*(connect(links, self.hops[index]) for index in new))
                requests = [self.open(i, self._sends_from(i, keep), pages) for i in new]
                await all_of(
                    *(take(self.hops[i], each) for i, each in zip(new, requests, strict=True))
                )
        except TimeoutError as error:
            silent = next((hop for hop in self.hops if hop.is_awaited), self.hops[0])
            what = f"did not take its place in the chain within {timeout_s:g} s"
            raise PeerTimeout(silent.peer, what) from error
        for index, hop in enumerate(self.hops):
            if index not in new:
                hop.send(self.reroute(index, hop, keep[index], self._sends_from(index, keep)))
                hop.held = keep[index]
        if not pages:
            return 0
        held = [hop.held for hop in self.hops]
        for hop in self.hops:  # behind what all of them hold, and with a token to ask about
            hop.held = min(*held, len(self.token_ids) - 1)
        return int(any(held))

    def _sends_from(self, index: int, keep: list[int]) -> int:
        is_last = index == len(self.hops) - 1
        return len(self.token_ids) - 1 if is_last else keep[index + 1]

    def open(self, index: int, send_from: int, pages: bytes) -> Open:
        """Ask for a place as that hop, or as its standby; pages: those it may hold already."""
        terms, is_last = self.terms, index == len(self.hops) - 1
        pools = is_last and terms.pools
        samples = is_last and not terms.has_local_ends and not pools
        return Open(
            fingerprint=terms.spec.fingerprint,
            numerics=self.chain.numerics,
            layers=self.hops[index].hop.layers,
            max_tokens=terms.max_tokens,
            sampling=terms.sampling if samples else None,
            token_ids=self._known_tokens(index),
            send_from=send_from,
            pages=pages,
            num_prompt=terms.num_prompt,
            pools=pools,
            **self._place(index),
        )

    def reroute(self, index: int, hop: HopState, position: int, send_from: int) -> Reroute:
        """Tell a hop that stays (or its standby) its place in this epoch."""
        return Reroute(
            layer=hop.layer,
            position=position,
            send_from=send_from,
            token_ids=self._known_tokens(index),
            **self._place(index),
        )

    def _known_tokens(self, index: int) -> Tensor | None:
        is_last = index == len(self.hops) - 1
        return int64(self.token_ids) if is_last and self.terms.needs_tokens else None

    def _place(self, index: int) -> dict[str, Any]:
        hops, following = self.hops, None
        if index < len(hops) - 1 and not hops[index + 1].hop.is_carried:
            following = hops[index + 1].hop
        ring = hops[0] if index == len(hops) - 1 else hops[-1] if index == 0 else None
        ring = ring if self.terms.closes_ring else None
        is_fed_by_us = index == 0 or hops[index].hop.is_carried
        return {
            "session": self.terms.session,
            "epoch": self.epoch,
            "previous": None if is_fed_by_us else hops[index - 1].peer,
            "next": following.peer if following else None,
            "next_addresses": following.addresses if following else (),
            "ring": ring.peer if ring else None,
            "ring_addresses": ring.hop.addresses if ring and index else (),
        }


async def connect(links: Links, hop: HopState) -> None:
    """Have a chain link to that hop's peer; raises PeerError."""
    if hop.link is None:
        hop.link = await links.connect(hop.peer, hop.hop.addresses)


async def ask(hop: HopState, request: Open | Reroute) -> Any:
    """Send a request and wait for the yes, which is returned; raises PeerRefused and the like."""
    reply = hop.expect_reply()
    if isinstance(request, Open) and hop.link is not None:
        hop.link.agree_on(Numerics.parse(request.numerics).wire)
    hop.send(request)
    answer = await reply
    if isinstance(answer, Refused):
        raise PeerRefused(hop.peer, answer.reason[:300], answer.retry_after_s)
    if isinstance(request, Open) and not isinstance(answer, Opened):
        raise PeerMisbehaved(hop.peer, f"answered with {type(answer).__name__}")
    hop.is_open = True
    return answer


async def take(hop: HopState, request: Open) -> None:
    """Have a hop take its place; then ``held`` is what it holds from an earlier session.

    Raises as `ask` does.
    """
    answer = await ask(hop, request)
    if answer.position > tokens_named(request.pages):
        raise PeerMisbehaved(hop.peer, f"holds {answer.position} tokens that were not named")
    hop.held = answer.position


def int64(token_ids: list[int]) -> Tensor:
    """Token ids as they travel, int64 [tokens]."""
    data = memoryview(bytearray(8 * len(token_ids))).cast("q")
    for index, token_id in enumerate(token_ids):
        data[index] = token_id
    return Tensor("int64", (len(token_ids),), data.cast("B"))
