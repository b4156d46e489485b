"""Checkpoint files: safetensors and nothing else, written so that a kill leaves old or new.

A file is written beside its place, synced, then renamed over it. Nothing here unpickles.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file


def save_tensors(
    path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Replace ``path`` by a safetensors file with these tensors, atomically."""
    beside = path.with_name(path.name + ".new")
    save_file({name: t.contiguous() for name, t in tensors.items()}, beside, metadata=metadata)
    _move_into_place(beside, path)


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        return tensors, dict(file.metadata() or {})


def save_text(path: Path, text: str) -> None:
    """Replace a UTF-8 text file atomically."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(text, encoding="utf-8")
    _move_into_place(beside, path)


def save_json(path: Path, value: object) -> None:
    """Replace a JSON file atomically."""
    save_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def _move_into_place(beside: Path, path: Path) -> None:
    # The writer of safetensors leaves files which only their owner can read.
    beside.chmod(0o644)
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.replace(path)
