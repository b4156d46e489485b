"""Tiny checkpoints on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from p2pnode.model import tiny
from p2pnode.model.block import Block
from p2pnode.model.check import quiet_transformers
from p2pnode.model.spec import read_spec
from p2pnode.types import LayerRange


def save_tiny(folder: Path, family: str = "llama", **options: Any) -> Any:
    """Write a tiny checkpoint; returns the unsplit model."""
    model = tiny.random_model(tiny.default_config(family))
    with quiet_transformers():
        model.save_pretrained(folder, **options)
    return model


def load(folder: Path, start: int = 0, stop: int = 4) -> Block:
    spec = read_spec(folder, "tiny", "")
    return Block.load(folder, spec, LayerRange(start, stop), device="cpu", dtype="float32")
