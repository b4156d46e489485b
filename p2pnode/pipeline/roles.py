"""What a session needs from others: who finds chains, who keeps the ends, and its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

from p2pnode.config import ClientConfig
from p2pnode.errors import PeerError, PeerFault, PeerTimeout
from p2pnode.types import Chain, Chosen, Hop, LayerRange, PeerId, Tensor


class Accused(PeerError):
    """Another hop blames it. One of the two is at fault, or the way between them."""

    def __init__(self, peer: PeerId, what: str, reporter: PeerId) -> None:
        super().__init__(peer, what)
        self.reporter = reporter


class Outpaced(PeerTimeout):
    """It was so late that its standby answered first."""


class Forgot(PeerError):
    """It no longer holds what it would have to send again, and has said so: no offence."""


class Unfollowed(PeerFault):
    """It cannot go on as the session's constraint says, and nobody could."""


class Router(Protocol):
    """Finds chains and remembers what went wrong with whom, and how long each took."""

    async def chain(self, num_tokens: int) -> Chain:
        """A chain with room for so many tokens; raises NoChain, PromptTooLong."""
        ...

    async def mend(self, chain: Chain, lost: frozenset[int], num_tokens: int) -> Chain:
        """The chain with the hops at these indexes replaced; raises NoChain."""
        ...

    async def standby(self, chain: Chain, index: int, num_tokens: int) -> Hop | None:
        """The best other peer that could run that hop's layers alone, or None.

        Not a neighbour of the hop, who could not take its place.
        """
        ...

    def chunk_tokens(self, chain: Chain, num_tokens: int) -> int | None:
        """In what pieces a prompt of so many tokens is read soonest; None: not known."""
        ...

    def usual_s(self, layers: LayerRange, num_tokens: int) -> float | None:
        """Mean + 2 sigma of the compute time of such a step, of all peers measured for them.

        None while too few are known to say what is usual.
        """
        ...

    def measured(self, peer: PeerId, step_s: float, *, is_handed: bool) -> None:
        """A decode step at that peer took so long, seen from here (transfer included).

        is_handed: its token had not to go there from here first
        """
        ...

    def blame(self, error: PeerError) -> None:
        """Remember a failure; `PeerRefused` and leaving are none."""
        ...


class Ends(Protocol):
    """Embedding, head and sampling of one session whose client keeps the token ids to itself."""

    async def embed(self, token_ids: list[int], position: int) -> Tensor:
        """[tokens] -> hidden [tokens, hidden_size]."""
        ...

    async def choose(self, hidden: Tensor, token_ids: list[int]) -> Chosen:
        """The next token after ``token_ids`` from the last row of hidden.

        Raises ComputeFailed when the values are not finite, or a constraint cannot be followed.
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
    has_standbys: bool = True

    @classmethod
    def of(cls, config: ClientConfig) -> Self:
        """What a client's settings say of it."""
        return cls(
            chunk_tokens=config.prefill_chunk_tokens,
            open_timeout_s=config.open_timeout_s,
            step_timeout_s=config.step_timeout_s,
            step_floor_s=config.step_floor_s,
            mend_timeout_s=config.mend_timeout_s,
            close_timeout_s=config.close_timeout_s,
            has_standbys=config.standbys,
        )
