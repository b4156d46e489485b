"""What a last hop's answer must be; anything else is PeerMisbehaved."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from p2pnode.errors import BadConstraint, ComputeFailed, PeerMisbehaved
from p2pnode.numerics import Numerics
from p2pnode.pipeline.configure import Configuration, Terms
from p2pnode.pipeline.roles import Ends
from p2pnode.types import Chosen, ModelSpec, PeerId, Tensor
from p2pnode.wire.logprobs import unpack
from p2pnode.wire.messages import Result


async def next_tokens(
    result: Result, configuration: Configuration, ends: Ends | None
) -> Sequence[Chosen]:
    """The tokens that follow those of ``configuration``, as answered, or chosen by ``ends``.

    The first of them is right; each other one is, if the one before it was guessed.
    Raises PeerMisbehaved, and BadConstraint where the client's own cannot be followed.
    """
    peer, terms = configuration.hops[-1].peer, configuration.terms
    if ends is None:
        chosen = _tokens(result, peer, terms, configuration.line.sent)
        return chosen[len(configuration.token_ids) - 1 - result.position :]
    hidden = _hidden(result, peer, terms.spec, configuration.chain.numerics)
    try:
        return [await ends.choose(hidden, configuration.token_ids)]
    except ComputeFailed as error:
        if error.cause == "constraint":
            raise BadConstraint(str(error)) from error
        raise PeerMisbehaved(peer, str(error)) from error


async def mean_of(result: Result, configuration: Configuration) -> tuple[float, ...]:
    """The mean of all rows, as answered; raises PeerMisbehaved."""
    hidden, size = result.hidden, configuration.terms.spec.hidden_size
    if hidden is None or (hidden.dtype, hidden.shape) != ("float32", (size,)):
        raise PeerMisbehaved(configuration.hops[-1].peer, f"answered without float32 [{size}]")
    values = struct.unpack(f"<{size}f", hidden.data)
    if not all(map(math.isfinite, values)):
        raise PeerMisbehaved(configuration.hops[-1].peer, "answered what is not finite")
    return values


def _tokens(result: Result, peer: PeerId, terms: Terms, num_sent: int) -> list[Chosen]:
    num = len(result.token_ids)
    if not 0 < num <= num_sent - result.position:
        raise PeerMisbehaved(peer, f"answered {num} tokens, not as many as it was sent")
    vocab_size = terms.spec.vocab_size
    if max(result.token_ids) >= vocab_size:
        raise PeerMisbehaved(peer, "answered a token that does not exist")
    try:
        wanted = terms.sampling.num_logprobs
        return unpack(result.logprobs, result.token_ids, wanted, vocab_size)
    except ValueError as error:
        raise PeerMisbehaved(peer, f"answered with {error}") from error


def _hidden(result: Result, peer: PeerId, spec: ModelSpec, numerics: str) -> Tensor:
    """[tokens, hidden_size]"""
    rows, dtype = result.hidden, Numerics.parse(numerics).dtype
    if rows is None or rows.dtype != dtype or rows.shape[1:] != (spec.hidden_size,):
        raise PeerMisbehaved(peer, f"answered without {dtype} [tokens, {spec.hidden_size}]")
    return rows
