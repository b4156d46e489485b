"""What a running generation tells its caller, in order."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pnode.client.peers import PeerSeen
from p2pnode.routing.explain import Explanation
from p2pnode.types import Chain, LayerRange, PeerId


@dataclass(frozen=True, slots=True)
class ChainChosen:
    """The peers that compute from now on; again after each failover."""

    chain: Chain
    failovers: int
    explanation: Explanation | None = None
    """Why it was chosen; of the first chain, where the client was asked to explain."""


@dataclass(frozen=True, slots=True)
class TopLogprob:
    """One of the tokens that the model held most likely."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Token:
    """One token, exactly once, in order."""

    position: int
    """Index in prompt + answer."""
    token_id: int
    text: str
    """What is certain to follow what came before; may be empty (half a character, end of text)."""
    logprob: float | None = None
    """How likely it was to the model (`Chosen`); None: not asked for."""
    top_logprobs: tuple[TopLogprob, ...] = ()
    """What the model held most likely in its place, the best first."""


@dataclass(frozen=True, slots=True)
class HopCost:
    """What one hop spent on the generation."""

    peer: PeerId
    layers: LayerRange
    num_steps: int
    queue_s: float
    compute_s: float
    rtt_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The whole answer."""

    text: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    cached_tokens: int = 0
    """Of the prompt: what the peers held from earlier sessions."""
    finish_reason: str
    """``stop`` (end of text or a stop string), ``length`` or ``cancelled``."""
    chain: Chain
    failovers: int
    ttft_s: float
    """Time to the first token."""
    tokens_per_s: float
    """Of the tokens after the first."""
    stall_s: float
    """The longest wait for one token after the first."""
    hedges: int = 0
    """Steps that a standby was asked to do as well."""
    guesses_right: int = 0
    """Tokens that were guessed ahead, and came out so."""
    guesses_wrong: int = 0
    hops: tuple[HopCost, ...] = field(default=())
    peers: tuple[PeerSeen, ...] = ()
    """What was seen of them, in earlier generations too; where the client was asked to explain."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """What the model makes of a text: the mean of its last hidden states, after the final norm."""

    vector: tuple[float, ...]
    num_tokens: int


Event = ChainChosen | Token | Done
