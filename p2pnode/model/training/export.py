"""Writing a trained student as a folder which ``transformers`` loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, PretrainedConfig

from p2pnode.model.training.files import save_json, save_tensors, save_text

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ message['content'] | trim }}"
    "{% if not loop.last %} {% endif %}"
    "{% endfor %}"
)
"""The model writes on; it answers nothing. So a conversation is the opening of a story."""


def export_model(
    weights: dict[str, torch.Tensor], config: LlamaConfig, tokenizer: Path, out: Path
) -> None:
    """Write weights (bfloat16), configuration and tokenizer into ``out``, file by file.

    tokenizer: the folder of the teacher, whose vocabulary the student shares
    """
    out.mkdir(parents=True, exist_ok=True)
    halves = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    save_tensors(out / "model.safetensors", halves, {"format": "pt"})
    save_json(out / "config.json", plain_config(config))
    save_json(out / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    vocabulary = (tokenizer / "tokenizer.json").read_text(encoding="utf-8")
    save_text(out / "tokenizer.json", vocabulary)
    settings = json.loads((tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings |= {"chat_template": CHAT_TEMPLATE, "model_max_length": 512}
    save_json(out / "tokenizer_config.json", settings)


def plain_config(config: LlamaConfig) -> dict[str, Any]:
    """The configuration as it is written: what makes a Llama, and the type of the weights."""
    of_every_model = PretrainedConfig().to_dict()
    values = {name: v for name, v in config.to_dict().items() if name not in of_every_model}
    return values | {
        "architectures": ["LlamaForCausalLM"],
        "dtype": "bfloat16",
        "model_type": config.model_type,
    }
