"""Where families of models deviate; everything else about them is found out, not listed.

A family needs no entry here to be served: its own forward runs, and `check.ensure_supported`
compares a split tiny model with the unsplit one before a block of it is loaded.
"""

from __future__ import annotations

from typing import Any

from huggingface_hub.errors import StrictDataclassError

CODE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
"""What a family's code may raise on a config, weights or a call that it was not made for."""

MAX_POSITIONS = {"bloom": 2048}
"""Families whose config does not say how long a text they were trained for."""

DEFAULT_MAX_POSITIONS = 2048


def max_positions(config: Any) -> int:
    """Tokens that a text may have, prompt and answer together."""
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
    stated = [getattr(config, name, None) for name in names]
    known = [value for value in stated if isinstance(value, int) and value > 0]
    most = known[0] if known else MAX_POSITIONS.get(config.model_type, DEFAULT_MAX_POSITIONS)
    return min([most, *_lengths_of_longrope(config)])


def _lengths_of_longrope(config: Any) -> list[int]:
    """Where "longrope" changes its frequencies.

    Keys cached before that point keep the old ones, so a text beyond it depends on how it was
    computed: step by step, or replayed at once. We stop short of it rather than be inexact.
    """
    parameters = getattr(config, "rope_parameters", None) or {}
    tables = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    default = getattr(config, "original_max_position_embeddings", None)
    lengths = [
        table.get("original_max_position_embeddings") or default
        for table in tables
        if table.get("rope_type") == "longrope"
    ]
    return [length for length in lengths if isinstance(length, int)]


def cut_lists(config: Any, start: int, stop: int) -> None:
    """Keep our layers' part of every per-layer list in a config.

    A forward indexes such lists by its own loop, which counts our layers from 0; the layers
    themselves have read theirs, by global index, when they were built.
    """
    num_layers = config.num_hidden_layers
    for name, value in vars(config).items():
        if isinstance(value, list) and len(value) == num_layers and not name.startswith("_"):
            setattr(config, name, value[start:stop])


def kv_widths(config: Any) -> tuple[int, int]:
    """Numbers that one layer keeps of one token: as keys, as values."""
    heads = config.num_attention_heads
    if getattr(config, "kv_lora_rank", None):  # latent attention
        return config.kv_lora_rank, config.qk_rope_head_dim
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    if config.model_type == "falcon":
        kv_heads = _falcon_kv_heads(config)
    return kv_heads * head_dim, kv_heads * head_dim


def _falcon_kv_heads(config: Any) -> int:
    """Falcon names its key-value heads three ways, by generation."""
    if config.new_decoder_architecture:
        heads: int = config.num_kv_heads
        return heads
    return 1 if config.multi_query else config.num_attention_heads


def one_line(error: BaseException) -> str:
    """An error of a family's code, for a sentence of ours."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
