"""Tiny random models with a real tokenizer, and what the unsplit one says."""

from __future__ import annotations

import functools
from importlib.resources import files
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from p2pnode.lab.reference import write_tiny

BUILTIN = Path(str(files("p2pnode"))) / "model" / "builtin"


def make_tiny_llama(folder: Path) -> Path:
    """The lab's tiny Llama with 9 layers, a short context and an end of text."""
    write_tiny(folder, 9, max_positions=256, eos_token_id=2)
    return folder


@functools.lru_cache(maxsize=8)
def unsplit(folder: Path) -> torch.nn.Module:
    """The whole model in float32, run by transformers."""
    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def greedy(folder: Path, prompt: list[int], num_tokens: int) -> list[int]:
    """What the unsplit model writes."""
    model = unsplit(folder)
    with torch.inference_mode():
        out = model.generate(  # type: ignore[operator]
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=num_tokens,
            do_sample=False,
            pad_token_id=0,
        )
    ids: list[int] = out[0, len(prompt) :].tolist()
    return ids
