"""Random models of a chosen cost: what they write does not matter, what they take does."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.utils import logging

from p2pnode.model.source import find_model

HIDDEN_SIZE = 2048
"""8 KiB per hidden state in float32."""
NUM_LAYERS = 3
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def make_wide(folder: Path) -> Path:
    """0.73 GB in float32: a token takes 40 ms or more on one thread of a common CPU."""
    return make_model(folder, intermediate_size=8192, heads=16, kv_heads=4, head_dim=128)


def make_thin(folder: Path, num_layers: int = NUM_LAYERS, hidden_size: int = HIDDEN_SIZE) -> Path:
    """The same hidden states with next to no compute between them: what is left is overhead."""
    thin = {"intermediate_size": 64, "heads": 2, "kv_heads": 1, "head_dim": 32}
    return make_model(folder, num_layers=num_layers, hidden_size=hidden_size, **thin)


def make_model(
    folder: Path,
    *,
    intermediate_size: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    hidden_size: int = HIDDEN_SIZE,
    num_layers: int = NUM_LAYERS,
) -> Path:
    """A Llama with random weights and the built-in model's tokenizer; its text has no end."""
    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=None,
        tie_word_embeddings=True,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    source = find_model(None, cache=folder.parent).folder
    for name in TOKENIZER:
        shutil.copy(source / name, folder / name)
    return folder
