"""One attention function for all families that call transformers' attention interface.

Each session of a packed row attends to its own keys only: causal, windowed where the layer is,
with soft caps and sinks where the family has them. Exact: what pads shorter sessions of a group
has weight 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention, softmax
from transformers import AttentionInterface

from p2pnode.model.packed import TOGETHER_TOKENS, Group, Packed

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
    is_plain = not softcap and s_aux is None
    outs = []
    for group, (keys, values) in zip(packed.groups, packed.views, strict=True):
        part = _of_group(query, group)
        keys, values = _seen(keys, values, group, sliding_window)
        total = keys.shape[2]
        if is_plain and _is_causal(group, total, sliding_window):
            out = _plain(part, keys, values, scale, None)
        else:
            mask = _mask(group, part, total, sliding_window)
            if is_plain:
                out = _plain(part, keys, values, scale, mask)
            else:
                out = _explicit(part, keys, values, scale, mask, softcap, s_aux)
        outs.append(out.reshape(1, -1, *out.shape[2:]))
    return outs[0] if len(outs) == 1 else torch.cat(outs, 1), None


def _of_group(query: torch.Tensor, group: Group) -> torch.Tensor:
    """A group's part of a row: [sessions, heads, tokens of each, head_dim]."""
    sessions = len(group.caches)
    if sessions * group.tokens != query.shape[2]:
        query = query.narrow(2, group.start, sessions * group.tokens)
    if sessions == 1:
        return query
    _, heads, _, size = query.shape
    return query.view(heads, sessions, group.tokens, size).transpose(0, 1)


def _seen(
    keys: torch.Tensor, values: torch.Tensor, group: Group, window: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Leave out keys that no new token sees any more; the rest is exact."""
    start = max(0, group.first - window + 1) if window else 0
    if not start:
        return keys, values
    count = keys.shape[2] - start
    return keys.narrow(2, start, count), values.narrow(2, start, count)


def _plain(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """Softmax attention through torch's fused kernels; [sessions, tokens, heads, head_dim]."""
    sessions, heads, tokens, size = query.shape
    kv_heads = keys.shape[1]
    sharing = heads // kv_heads
    if tokens == 1 or (tokens <= TOGETHER_TOKENS and mask is not None):
        # Heads that share keys become rows of queries: keys are read once, and nothing is repeated.
        folded = query.reshape(sessions, kv_heads, sharing * tokens, size)
        if mask is not None and tokens > 1 and sharing > 1:
            mask = mask.repeat(1, 1, sharing, 1)
        out = scaled_dot_product_attention(folded, keys, values, attn_mask=mask, scale=scale)
        return out.reshape(sessions, heads, tokens, values.shape[-1]).transpose(1, 2)
    is_causal = mask is None
    if sharing > 1 and not is_causal and query.device.type != "cpu":
        # Kernels that take a mask do not share heads; without this they fall back to slow code.
        keys, values = keys.repeat_interleave(sharing, 1), values.repeat_interleave(sharing, 1)
    out = scaled_dot_product_attention(
        query,
        keys,
        values,
        attn_mask=mask,
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
    mask: torch.Tensor | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention spelled out, as the families with soft caps or sinks define it."""
    sessions, heads, tokens, size = query.shape
    kv_heads, total = keys.shape[1], keys.shape[2]
    folded = query.reshape(sessions, kv_heads, heads // kv_heads, tokens, size)
    scores = torch.matmul(folded, keys.unsqueeze(2).transpose(-1, -2)) * scale
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores + mask.unsqueeze(2)
    if sinks is not None:
        column = sinks.reshape(1, kv_heads, heads // kv_heads, 1, 1).to(scores.dtype)
        scores = torch.cat([scores, column.expand(*scores.shape[:-1], 1)], -1)
    weights = softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)[..., :total]
    out = torch.matmul(weights, values.unsqueeze(2))
    return out.reshape(sessions, heads, tokens, values.shape[-1]).transpose(1, 2)


def _is_causal(group: Group, total: int, window: int | None) -> bool:
    """Whether it is one whole text, for which kernels need no mask."""
    is_whole = len(group.caches) == 1 and group.tokens == total == group.total
    return is_whole and not (window and total > window)


def _mask(group: Group, query: torch.Tensor, total: int, window: int | None) -> torch.Tensor | None:
    """0 where a new token sees one of the last ``total`` keys, -inf elsewhere.

    returns: [sessions, 1, tokens, total], made once per forward; None where all is seen
    """
    firsts, tokens = group.firsts, group.tokens
    if tokens == 1 and group.is_level:
        return None
    if window in group.masks:
        return group.masks[window]
    device = query.device
    rows = torch.tensor(firsts, device=device)[:, None] + torch.arange(tokens, device=device)
    columns = torch.arange(group.total - total, group.total, device=device)
    seen = columns <= rows[..., None]
    if window:
        seen &= columns > rows[..., None] - window
    mask = torch.zeros(seen.shape, dtype=query.dtype, device=device)
    mask.masked_fill_(~seen, float("-inf"))
    group.masks[window] = mask = mask[:, None]
    return mask
