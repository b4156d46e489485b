"""One attention function for all families that call transformers' attention interface.

Each session of a packed row attends to its own keys only: causal, windowed where the layer is,
with soft caps and sinks where the family has them. Exact: no approximation, no padding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention, softmax
from transformers import AttentionInterface

from p2pnode.model.cache import Packed

NAME = "p2pnode"
"""Our name in the interface. It has no mask function, so transformers makes no masks."""


def register() -> None:
    """Make the function known to transformers; repeating it is harmless."""
    AttentionInterface.register(NAME, packed_attention)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    packed: Packed | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each session.

    query: [1, heads, tokens, head_dim], all sessions in one row
    key, value: unused: `Packed.update` has put them behind each session's own
    sliding_window: keys that a token sees, itself included; None sees all
    s_aux: [heads], the sinks' logits
    returns: [1, tokens, heads, head_dim]
    Raises ValueError when the family does not hand ``packed`` down: it cannot be packed.
    """
    if packed is None:
        raise ValueError("the family does not hand keyword arguments down to its attention")
    packed.attended += 1
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    views = packed.views
    parts = (query,) if len(views) == 1 else query.split(list(packed.lengths), 2)
    is_plain = not softcap and s_aux is None
    outs = []
    for part, (keys, values) in zip(parts, views, strict=True):
        keys, values = _seen(keys, values, part.shape[2], sliding_window)
        if is_plain:
            outs.append(_plain(part, keys, values, scale, sliding_window, packed))
        else:
            outs.append(
                _explicit(part, keys, values, scale, sliding_window, packed, softcap, s_aux)
            )
    return outs[0] if len(outs) == 1 else torch.cat(outs, 1), None


def _seen(
    keys: torch.Tensor, values: torch.Tensor, tokens: int, window: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Leave out keys that no new token sees any more; the rest is exact."""
    if not window or keys.shape[2] <= window + tokens - 1:
        return keys, values
    count = window + tokens - 1
    start = keys.shape[2] - count
    return keys.narrow(2, start, count), values.narrow(2, start, count)


def _plain(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scale: float,
    window: int | None,
    packed: Packed,
) -> torch.Tensor:
    """Softmax attention through torch's fused kernels."""
    _, heads, tokens, size = query.shape
    kv_heads, total = keys.shape[1], keys.shape[2]
    if tokens == 1:
        # One token sees every key: its heads that share keys become a row of queries.
        grouped = query.reshape(1, kv_heads, heads // kv_heads, size)
        out = scaled_dot_product_attention(grouped, keys, values, scale=scale)
        return out.reshape(1, 1, heads, values.shape[-1])
    is_causal = tokens == total and not (window and total > window)
    if heads != kv_heads and not is_causal and query.device.type != "cpu":
        # Kernels that take a mask do not share heads; without this they fall back to slow code.
        keys = keys.repeat_interleave(heads // kv_heads, 1)
        values = values.repeat_interleave(heads // kv_heads, 1)
    out = scaled_dot_product_attention(
        query,
        keys,
        values,
        attn_mask=None if is_causal else _mask(packed, query, total, window),
        is_causal=is_causal,
        scale=scale,
        enable_gqa=heads != keys.shape[1],
    )
    return out.transpose(1, 2)


def _explicit(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scale: float,
    window: int | None,
    packed: Packed,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention spelled out, as the families with soft caps or sinks define it."""
    _, heads, tokens, size = query.shape
    kv_heads, total = keys.shape[1], keys.shape[2]
    grouped = query.reshape(1, kv_heads, heads // kv_heads, tokens, size)
    scores = torch.matmul(grouped, keys.unsqueeze(2).transpose(-1, -2)) * scale
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    if tokens > 1:
        scores = scores + _mask(packed, query, total, window)
    if sinks is not None:
        column = sinks.reshape(1, kv_heads, heads // kv_heads, 1, 1).to(scores.dtype)
        scores = torch.cat([scores, column.expand(*scores.shape[:-1], 1)], -1)
    weights = softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)[..., :total]
    out = torch.matmul(weights, values.unsqueeze(2))
    return out.reshape(1, heads, tokens, values.shape[-1]).transpose(1, 2)


def _mask(packed: Packed, query: torch.Tensor, total: int, window: int | None) -> torch.Tensor:
    """[tokens, total]: 0 where a new token sees a key, -inf elsewhere; made once per forward."""
    tokens = query.shape[2]
    key = (tokens, total, window or 0)
    mask = packed.masks.get(key)
    if mask is None:
        rows = torch.arange(total - tokens, total, device=query.device)[:, None]
        columns = torch.arange(total, device=query.device)[None]
        seen = columns <= rows
        if window:
            seen &= columns > rows - window
        mask = torch.zeros((tokens, total), dtype=query.dtype, device=query.device)
        mask.masked_fill_(~seen, float("-inf"))
        packed.masks[key] = mask
    return mask
