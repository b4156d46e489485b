"""Tiny random models with a real tokenizer, and what the unsplit one says."""

from __future__ import annotations

import functools
import shutil
from importlib.resources import files
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

BUILTIN = Path(str(files("p2pnode"))) / "model" / "builtin"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def make_tiny_llama(folder: Path, *, num_layers: int = 9, seed: int = 0) -> Path:
    """A Llama of 512 tokens and random weights, large enough that greedy text varies."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copy(BUILTIN / name, folder / name)
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
