"""What a last hop's answer must be; anything else is PeerMisbehaved."""

from __future__ import annotations

from collections.abc import Sequence

from p2pnode.errors import ComputeFailed, PeerMisbehaved
from p2pnode.numerics import Numerics
from p2pnode.pipeline.configure import Configuration
from p2pnode.pipeline.roles import Ends
from p2pnode.types import ModelSpec, PeerId, Tensor
from p2pnode.wire.messages import Result


async def next_tokens(
    result: Result, configuration: Configuration, ends: Ends | None
) -> Sequence[int]:
    """The tokens that follow those of ``configuration``, as answered, or chosen by ``ends``.

    The first of them is right; each other one is, if the one before it was guessed.
    """
    peer, terms = configuration.hops[-1].peer, configuration.terms
    if ends is None:
        token_ids = _tokens(result, peer, terms.spec, configuration.line.sent)
        return token_ids[len(configuration.token_ids) - 1 - result.position :]
    hidden = _hidden(result, peer, terms.spec, configuration.chain.numerics)
    try:
        return [await ends.choose(hidden, terms.sampling, configuration.token_ids)]
    except ComputeFailed as error:
        raise PeerMisbehaved(peer, str(error)) from error


def _tokens(result: Result, peer: PeerId, spec: ModelSpec, num_sent: int) -> tuple[int, ...]:
    num = len(result.token_ids)
    if not 0 < num <= num_sent - result.position:
        raise PeerMisbehaved(peer, f"answered {num} tokens, not as many as it was sent")
    if max(result.token_ids) >= spec.vocab_size:
        raise PeerMisbehaved(peer, "answered a token that does not exist")
    return result.token_ids


def _hidden(result: Result, peer: PeerId, spec: ModelSpec, numerics: str) -> Tensor:
    """[tokens, hidden_size]"""
    rows, dtype = result.hidden, Numerics.parse(numerics).dtype
    if rows is None or rows.dtype != dtype or rows.shape[1:] != (spec.hidden_size,):
        raise PeerMisbehaved(peer, f"answered without {dtype} [tokens, {spec.hidden_size}]")
    return rows
