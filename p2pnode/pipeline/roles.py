"""What a session needs from others: who finds chains, who keeps the ends, and its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from p2pnode.errors import PeerError
from p2pnode.types import Chain, PeerId, Sampling, Tensor


class Accused(PeerError):
    """Another hop blames it. One of the two is at fault, or the way between them."""

    def __init__(self, peer: PeerId, what: str, reporter: PeerId) -> None:
        super().__init__(peer, what)
        self.reporter = reporter


class Router(Protocol):
    """Finds chains and remembers what went wrong with whom."""

    async def chain(self, num_tokens: int) -> Chain:
        """A chain with room for so many tokens; raises NoChain, PromptTooLong."""
        ...

    async def mend(self, chain: Chain, lost: frozenset[int], num_tokens: int) -> Chain:
        """The chain with the hops at these indexes replaced; raises NoChain."""
        ...

    def blame(self, error: PeerError) -> None:
        """Remember a failure."""
        ...


class Ends(Protocol):
    """Embedding, head and sampling, for a client that keeps the token ids to itself."""

    async def embed(self, token_ids: list[int], position: int) -> Tensor:
        """[tokens] -> hidden [tokens, hidden_size]."""
        ...

    async def choose(self, hidden: Tensor, sampling: Sampling, token_ids: list[int]) -> int:
        """The next token after ``token_ids`` from the last row of hidden.

        Raises ComputeFailed when the values are not finite.
        """
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
