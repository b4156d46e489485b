"""What a last hop's answer must be; anything else is PeerMisbehaved."""

from __future__ import annotations

from p2pnode.errors import ComputeFailed, PeerMisbehaved
from p2pnode.pipeline.configure import Configuration
from p2pnode.pipeline.roles import Ends
from p2pnode.types import ModelSpec, PeerId, Tensor
from p2pnode.wire.messages import Result


async def next_token(result: Result, configuration: Configuration, ends: Ends | None) -> int:
    """The token that follows those of ``configuration``, as answered, or chosen by ``ends``."""
    peer, terms = configuration.hops[-1].peer, configuration.terms
    if ends is None:
        return _token(result, peer, terms.spec)
    hidden = _hidden(result, peer, terms.spec, configuration.chain.numerics)
    try:
        return await ends.choose(hidden, terms.sampling, configuration.token_ids)
    except ComputeFailed as error:
        raise PeerMisbehaved(peer, str(error)) from error


def _token(result: Result, peer: PeerId, spec: ModelSpec) -> int:
    if len(result.token_ids) != 1 or result.token_ids[0] >= spec.vocab_size:
        raise PeerMisbehaved(peer, f"answered {len(result.token_ids)} tokens, or no such token")
    return result.token_ids[0]


def _hidden(result: Result, peer: PeerId, spec: ModelSpec, numerics: str) -> Tensor:
    """[tokens, hidden_size]"""
    rows, dtype = result.hidden, numerics.partition("+")[0]
    if rows is None or rows.dtype != dtype or rows.shape[1:] != (spec.hidden_size,):
        raise PeerMisbehaved(peer, f"answered without {dtype} [tokens, {spec.hidden_size}]")
    return rows
