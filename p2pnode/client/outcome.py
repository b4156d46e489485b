"""What a generation came to: the answer, the chain, and where the time went."""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode.client.events import Done, HopCost
from p2pnode.net.links import Links
from p2pnode.pipeline.session import ChainSession
from p2pnode.types import Chain
from p2pnode.wire.messages import CONTROL


@dataclass(slots=True)
class Times:
    """When tokens came, on the loop's clock."""

    began: float
    first: float = 0.0
    last: float = 0.0
    stall_s: float = 0.0
    num_tokens: int = 0

    def note(self, now: float) -> None:
        if self.num_tokens:
            self.stall_s = max(self.stall_s, now - self.last)
        else:
            self.first = now
        self.last = now
        self.num_tokens += 1

    @property
    def tokens_per_s(self) -> float:
        took_s = self.last - self.first
        return (self.num_tokens - 1) / took_s if took_s > 0 else 0.0


def done(
    session: ChainSession, links: Links, prompt_tokens: int, text: str, reason: str, times: Times
) -> Done:
    """The last event of a generation."""
    return Done(
        text=text,
        token_ids=tuple(session.token_ids[prompt_tokens:]),
        prompt_tokens=prompt_tokens,
        cached_tokens=session.num_cached,
        finish_reason=reason,
        chain=session.chain or Chain((), ""),
        failovers=session.failovers,
        hedges=session.hedges,
        ttft_s=times.first - times.began,
        tokens_per_s=times.tokens_per_s,
        stall_s=times.stall_s,
        hops=tuple(
            HopCost(
                peer=state.peer,
                layers=state.hop.layers,
                num_steps=state.num_steps,
                queue_s=state.queue_s,
                compute_s=state.compute_s,
                rtt_s=control.rtt_s if control else None,
            )
            for state in session.hops
            for control in [links.get(state.peer, CONTROL)]
        ),
    )
