"""Telling every hop of a chain its place in it, when a session begins and after a failure.

**Receivers before senders.** A surviving hop whose next hop is new replays its journal as soon as
it is told, so it is told after all others, and of several such hops the last one first: whoever
receives a step already knows the epoch that it belongs to.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from p2pnode.errors import PeerFault, PeerMisbehaved, PeerRefused, PeerTimeout
from p2pnode.net.links import Links
from p2pnode.pipeline.hops import HopState, positions
from p2pnode.tasks import all_of
from p2pnode.types import ModelSpec, Sampling, Tensor
from p2pnode.wire.messages import Open, Opened, Refused, Reroute, Rerouted


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What stays the same in all configurations of a session."""

    session: bytes
    spec: ModelSpec
    sampling: Sampling
    max_tokens: int
    has_local_ends: bool


@dataclass(frozen=True, slots=True)
class Configuration:
    """One epoch of a session: its hops, and the tokens that were known when it began."""

    terms: Terms
    epoch: int
    numerics: str
    hops: list[HopState]
    token_ids: list[int]

    async def apply(self, links: Links, timeout_s: float) -> None:
        """Open the new hops and reroute the surviving ones; then ``held`` of all is known.

        Raises the first PeerError that stands in the way.
        """
        for hop in self.hops:
            hop.expect_nothing()
        try:
            async with asyncio.timeout(timeout_s):
                await self._apply(links)
        except TimeoutError as error:
            silent = next((hop for hop in self.hops if hop.is_awaited), self.hops[0])
            what = f"did not take its place in the chain within {timeout_s:g} s"
            raise PeerTimeout(silent.peer, what) from error

    async def _apply(self, links: Links) -> None:
        keep = positions(self.hops, len(self.token_ids))
        is_new = [hop.link is None for hop in self.hops]
        await all_of(*(_connect(links, hop) for hop in self.hops if hop.link is None))
        replays = [
            not before and after for before, after in zip(is_new, [*is_new[1:], False], strict=True)
        ]
        requests = [self._request(index, keep, new) for index, new in enumerate(is_new)]
        await all_of(
            *(_ask(self.hops[i], requests[i]) for i, later in enumerate(replays) if not later)
        )
        for index in reversed([index for index, later in enumerate(replays) if later]):
            await _ask(self.hops[index], requests[index])
        for hop, held in zip(self.hops, keep, strict=True):
            hop.held = held

    def _request(self, index: int, keep: list[int], is_new: bool) -> Open | Reroute:
        """What to tell a hop: its place, its neighbours, and from where to send."""
        terms, is_last = self.terms, index == len(self.hops) - 1
        following = None if is_last else self.hops[index + 1].hop
        common: dict[str, Any] = {
            "session": terms.session,
            "epoch": self.epoch,
            "previous": self.hops[index - 1].peer if index else None,
            "next": following.peer if following else None,
            "next_addresses": following.addresses if following else (),
            "send_from": len(self.token_ids) - 1 if is_last else keep[index + 1],
        }
        if not is_new:
            return Reroute(layer=self.hops[index].layer, position=keep[index], **common)
        samples = is_last and not terms.has_local_ends
        needs_tokens = samples and terms.sampling.needs_tokens
        return Open(
            fingerprint=terms.spec.fingerprint,
            numerics=self.numerics,
            layers=self.hops[index].hop.layers,
            max_tokens=terms.max_tokens,
            sampling=terms.sampling if samples else None,
            token_ids=int64(self.token_ids) if needs_tokens else None,
            **common,
        )


async def _connect(links: Links, hop: HopState) -> None:
    hop.link = await links.connect(hop.peer, hop.hop.addresses)


async def _ask(hop: HopState, request: Open | Reroute) -> None:
    """Send a request and wait for the yes; raises PeerRefused and the like."""
    reply = hop.expect_reply()
    hop.send(request)
    answer = await reply
    if isinstance(answer, Refused):
        raise PeerRefused(hop.peer, answer.reason[:300], answer.retry_after_s)
    if isinstance(answer, Rerouted) and isinstance(request, Reroute):
        if answer.position < request.position:
            what = f"holds {answer.position} tokens where it had said {request.position}"
            raise PeerFault(hop.peer, what)
    elif not isinstance(answer, Opened):
        raise PeerMisbehaved(hop.peer, f"answered with {type(answer).__name__}")


def int64(token_ids: list[int]) -> Tensor:
    """Token ids as they travel, int64 [tokens]."""
    data = memoryview(bytearray(8 * len(token_ids))).cast("q")
    for index, token_id in enumerate(token_ids):
        data[index] = token_id
    return Tensor("int64", (len(token_ids),), data.cast("B"))
