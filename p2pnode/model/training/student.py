"""The models we train: Llama, small, with the teacher's tokenizer."""

from __future__ import annotations

import re
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

_LAYER_NAME = re.compile(r"model\.layers\.(\d+)\.(.+)")


def student_config(num_layers: int, *, vocab_size: int = 512) -> LlamaConfig:
    """Configuration of a student with this many decoder layers."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )


def new_student(config: LlamaConfig, *, seed: int) -> Any:
    """A student with random weights which depend on nothing but ``seed``."""
    student: Any = LlamaForCausalLM(config)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.02, generator=rng)
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    parameter.div_((2 * config.num_hidden_layers) ** 0.5)
    return student


def stack_layers(weights: dict[str, torch.Tensor], copies: int) -> dict[str, torch.Tensor]:
    """Copy every layer ``copies`` times in place, each adding its share to the residual stream.

    Training nine layers first and then the stack is several times cheaper than training the
    deep model from random weights: together the copies do about what the one layer did.
    """
    stacked = {}
    for name, tensor in weights.items():
        match = _LAYER_NAME.fullmatch(name)
        if match is None:
            stacked[name] = tensor.clone()
            continue
        layer, rest = int(match[1]), match[2]
        scale = 1 / copies if rest.startswith(("self_attn.o_proj", "mlp.down_proj")) else 1.0
        for copy in range(copies):
            stacked[f"model.layers.{layer * copies + copy}.{rest}"] = tensor * scale
    return stacked


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    """Weights by their names in a plain checkpoint; the tied output head is left out."""
    return {name: p.detach() for name, p in model.named_parameters()}


def load_weights(model: Any, weights: dict[str, torch.Tensor]) -> None:
    """Copy weights into a model; every parameter must be there."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
