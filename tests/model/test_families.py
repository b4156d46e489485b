"""Families split exactly, by the code that serves them, compared with transformers' own forward."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from p2pnode.model import tiny
from p2pnode.model.block import Block
from p2pnode.model.check import check_family, quiet_transformers
from p2pnode.model.memory import read_sizes
from p2pnode.model.spec import read_config, read_spec
from p2pnode.types import LayerRange

FAMILIES = (
    "llama qwen2 qwen3 qwen3_moe mistral mixtral gemma gemma2 gemma3_text phi3 olmo2 starcoder2 "
    "cohere2 glm4 smollm3 granite gpt_oss gpt_neox gpt2 falcon bloom"
).split()

ALONE = {"falcon", "bloom"}
"""Families that never call transformers' attention interface: one session per forward."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_unsplit_models_in_1_to_4_parts(family: str) -> None:
    check = check_family(family)

    assert check.reason == ""
    assert check.ok
    assert check.max_delta_logit <= 3e-6
    assert check.splits == ("0-3", "0-1 2-3", "0-0 1-1 2-3", "0-0 1-1 2-2 3-3")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_holds_what_the_sums_said_before_it_was_loaded(family: str, tmp_path: Path) -> None:
    with quiet_transformers():
        tiny.random_model(tiny.default_config(family)).save_pretrained(tmp_path)
    spec, sizes = read_spec(tmp_path, "tiny", ""), read_sizes(read_config(tmp_path), "float32")
    for layers in (LayerRange(0, 2), LayerRange(2, 4)):
        block = Block.load(tmp_path, spec, layers, device="cpu", dtype="float32")

        assert block.num_bytes == sizes.weights_bytes(layers)
        assert block.kv_bytes_per_token == sizes.kv_bytes_per_token(layers)
        assert block.packs == (family not in ALONE)


@pytest.mark.parametrize("family", ["ctrl", "jamba", "bert", "no_such_family"])
def test_a_family_that_cannot_be_split_is_refused_in_one_line(family: str) -> None:
    check = check_family(family)

    assert not check.ok
    assert check.reason
    assert "\n" not in check.reason


def test_shrinking_keeps_the_kinds_of_layers_and_the_ratio_of_heads(tmp_path: Path) -> None:
    large = tiny.default_config("gemma3_text")
    large.num_attention_heads, large.num_key_value_heads, large.head_dim = 8, 2, 16
    large.num_hidden_layers = 8
    large.layer_types = ["sliding_attention"] * 7 + ["full_attention"]
    large.save_pretrained(tmp_path)

    small = tiny.shrink(read_config(tmp_path))

    assert small.num_hidden_layers == len(small.layer_types) == 4
    assert set(small.layer_types) == {"sliding_attention", "full_attention"}
    assert small.num_attention_heads // small.num_key_value_heads == 4


def test_a_text_ends_where_longrope_would_change_what_is_cached(tmp_path: Path) -> None:
    config = tiny.default_config("phi3")
    factors = [1.0 + i for i in range(config.hidden_size // config.num_attention_heads // 2)]
    config.original_max_position_embeddings = 32
    config.rope_parameters = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 1.0,
        "short_factor": factors,
        "long_factor": factors,
        "original_max_position_embeddings": 32,
    }
    config.save_pretrained(tmp_path)

    assert read_spec(tmp_path, "tiny", "").max_positions == 32
    assert check_family(str(tmp_path)).ok
