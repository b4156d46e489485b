"""What a last hop's answer must be; anything else is PeerMisbehaved."""

from __future__ import annotations

from p2pnode.errors import PeerMisbehaved
from p2pnode.types import ModelSpec, PeerId, Tensor
from p2pnode.wire.messages import Result


def token_of(result: Result, peer: PeerId, spec: ModelSpec) -> int:
    """The one token of an answer to one position."""
    if len(result.token_ids) != 1 or result.token_ids[0] >= spec.vocab_size:
        raise PeerMisbehaved(peer, f"answered {len(result.token_ids)} tokens, or no such token")
    return result.token_ids[0]


def hidden_of(result: Result, peer: PeerId, spec: ModelSpec, numerics: str) -> Tensor:
    """[tokens, hidden_size] for a client that keeps the head."""
    rows, dtype = result.hidden, numerics.partition("+")[0]
    if rows is None or rows.dtype != dtype or rows.shape[1:] != (spec.hidden_size,):
        raise PeerMisbehaved(peer, f"answered without {dtype} [tokens, {spec.hidden_size}]")
    return rows
