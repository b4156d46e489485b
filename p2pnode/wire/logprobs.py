"""What a model thought of its tokens, packed, as it travels with them. Pure.

Of each token, little endian: ``f32 logprob``, then of each likely one ``u32 id, f32 logprob``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from p2pnode.sampling import MAX_LOGPROBS
from p2pnode.types import Chosen
from p2pnode.wire.fields import MAX_ITEMS

MAX_LOGPROBS_BYTES = MAX_ITEMS * (4 + 8 * MAX_LOGPROBS)


def pack(chosen: Sequence[Chosen]) -> bytes:
    """Nothing, where nothing was asked for."""
    parts = []
    for each in chosen:
        if each.logprob is not None:
            parts.append(struct.pack("<f", each.logprob))
            parts += [struct.pack("<If", *pair) for pair in each.top]
    return b"".join(parts)


def unpack(data: bytes, token_ids: Sequence[int], num: int | None, vocab_size: int) -> list[Chosen]:
    """The tokens and what belongs to each; ``num`` likely ones were asked for, None: nothing.

    Raises ValueError unless the bytes are just that.
    """
    if num is None:
        if data:
            raise ValueError("logprobs that nobody has asked for")
        return [Chosen(token_id) for token_id in token_ids]
    layout = struct.Struct("<f" + "If" * min(num, vocab_size))
    if len(data) != len(token_ids) * layout.size:
        raise ValueError(f"{len(data)} bytes of logprobs for {len(token_ids)} tokens")
    pairs = zip(token_ids, layout.iter_unpack(data), strict=True)
    return [_read(token_id, values, vocab_size) for token_id, values in pairs]


def _read(token_id: int, values: tuple[float, ...], vocab_size: int) -> Chosen:
    ids, logprobs = values[1::2], values[2::2]
    if not all(-math.inf < each <= 0.0 for each in (values[0], *logprobs)):
        raise ValueError("logprobs that are none")
    if not all(each < vocab_size for each in ids):
        raise ValueError("logprobs of tokens that do not exist")
    pairs = zip(map(int, ids), logprobs, strict=True)
    return Chosen(token_id, values[0], tuple(pairs))
