"""Where families of models deviate; everything else about them is found out, not listed.

A family needs no entry here to be served: its own forward runs, and `check.ensure_supported`
compares a split tiny model with the unsplit one before a block of it is loaded.
"""

from __future__ import annotations

from typing import Any

MAX_POSITIONS = {"bloom": 2048}
"""Families whose config does not say how long a text they were trained for."""

DEFAULT_MAX_POSITIONS = 2048


def max_positions(config: Any) -> int:
    """Tokens that a text may have, prompt and answer together."""
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return MAX_POSITIONS.get(config.model_type, DEFAULT_MAX_POSITIONS)


def cut_lists(config: Any, start: int, stop: int) -> None:
    """Keep our layers' part of every per-layer list in a config.

    A forward indexes such lists by its own loop, which counts our layers from 0; the layers
    themselves have read theirs, by global index, when they were built.
    """
    num_layers = config.num_hidden_layers
    for name, value in vars(config).items():
        if isinstance(value, list) and len(value) == num_layers and not name.startswith("_"):
            setattr(config, name, value[start:stop])
