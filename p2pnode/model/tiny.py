"""Tiny random models: of a family's default config, or of the shape of a given one.

Shrinking keeps what decides the mathematics (rotary tables, windows, caps, biases, layer types,
the ratio of heads to key-value heads) and changes only counts and widths.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from p2pnode.errors import ModelUnsupported

NUM_LAYERS = 4
NUM_HEADS = 4
WIDE_HEAD = 256
"""From this width on, hidden states are narrower than all heads, where a family lets them."""
VOCAB_SIZE = 128
WINDOW = 8
"""Shorter than the texts of a check, so that windows matter in it."""

COUNTS = {
    "vocab_size": VOCAB_SIZE,
    "vocab_size_per_layer_input": VOCAB_SIZE,
    "intermediate_size": 96,
    "ffn_hidden_size": 96,
    "n_inner": 96,
    "sliding_window": WINDOW,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
}
"""What a config is given where it has a number of that name; None stays None."""

NOT_SHAPE = ("transformers_version", "architectures", "model_type", "dtype")
DEFAULT_HEAD_DIM = 16
WEIGHT, OFFSET = 0.5, 0.1
"""Spread of random matrices (times 1 / sqrt of their width) and of what is added to vectors."""


def default_config(family: str) -> Any:
    """A family's own defaults, shrunk; raises ModelUnsupported for an unknown family."""
    if family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelUnsupported(f"transformers knows no causal model of family {family[:40]!r}")
    config = CONFIG_MAPPING[family]()
    return shrink(config, head_dim=None if _fixes_head_dim(config) else DEFAULT_HEAD_DIM)


def shrink(config: Any, *, head_dim: int | None = None) -> Any:
    """A config of the same family and shape, with few and narrow layers.

    head_dim: None keeps it, because tables in a config may be as long as it is wide
    """
    table = {name: value for name, value in config.to_dict().items() if name not in NOT_SHAPE}
    heads = config.num_attention_heads
    head_dim = head_dim or getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_kv_heads", 0)
    few_kv_heads = max(1, NUM_HEADS * kv_heads // heads) if kv_heads else None
    is_free = table.get("head_dim") is not None and head_dim >= WIDE_HEAD
    hidden_size = (NUM_HEADS // 2 if is_free else NUM_HEADS) * head_dim
    for name, value in table.items():
        if type(value) is not int:
            continue
        if name in COUNTS:
            table[name] = COUNTS[name]
        elif name.endswith(("_dim", "_size")) and value == config.hidden_size:
            table[name] = hidden_size  # the width of embeddings, by another name
    wanted = {
        "hidden_size": hidden_size,
        "num_attention_heads": NUM_HEADS,
        "num_key_value_heads": few_kv_heads,
        "num_kv_heads": few_kv_heads,
        "head_dim": head_dim,
        "num_hidden_layers": NUM_LAYERS,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    attribute_map = type(config).attribute_map
    for name, value in wanted.items():
        name = attribute_map.get(name, name)
        if name in table and not (value is None or (name == "head_dim" and table[name] is None)):
            table[name] = value
    for name, value in table.items():
        if isinstance(value, list) and len(value) == config.num_hidden_layers:
            table[name] = _sample(value)
    return type(config)(**table)


def random_model(config: Any, seed: int = 0) -> Any:
    """A float32 model whose weights are large enough for any mistake to show in its logits."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.tie_weights()
        for tensor in _weights(model):
            noise = torch.randn(tensor.shape)
            if tensor.ndim > 1:
                tensor.copy_(noise * WEIGHT * tensor.shape[-1] ** -0.5)
            else:
                tensor.add_(noise * OFFSET)  # norms start at 0 or 1, as the family has it
    return model.eval()


def _weights(model: Any) -> Iterable[torch.Tensor]:
    """Parameters and persistent buffers, each once."""
    seen: set[int] = set()
    for tensor in model.state_dict(keep_vars=True).values():
        if tensor.is_floating_point() and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            yield tensor


def _sample(values: list[Any]) -> list[Any]:
    """As many as we have layers, in order, with every kind of layer among them if possible."""
    firsts = sorted(values.index(value) for value in {repr(v): v for v in values}.values())
    others = [index for index in range(len(values)) if index not in firsts]
    chosen = sorted((firsts + others)[:NUM_LAYERS])
    return [values[index] for index in chosen]


def _fixes_head_dim(config: Any) -> bool:
    """Whether something in a config must agree with the width of a head."""
    if any(getattr(config, name, None) for name in ("rotary_dim", "qk_rope_head_dim")):
        return True
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = [parameters, *(v for v in parameters.values() if isinstance(v, dict))]
    return any(isinstance(value, list) for table in nested for value in table.values())
