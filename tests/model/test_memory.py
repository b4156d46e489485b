"""The sums before loading: exact for tensors, whoever holds the ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from p2pnode.model import tiny
from p2pnode.model.block import Block
from p2pnode.model.check import quiet_transformers
from p2pnode.model.memory import read_sizes
from p2pnode.model.spec import read_config, read_spec
from p2pnode.types import LayerRange


@pytest.mark.parametrize("family", ["llama", "gemma", "deepseek_v3"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_sums_are_what_loading_measures(family: str, dtype: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    with quiet_transformers():
        tiny.random_model(tiny.default_config(family)).save_pretrained(tmp_path)
    spec = read_spec(tmp_path, "tiny", "")
    sizes = read_sizes(read_config(tmp_path), dtype)
    for start, stop, ends in ((0, 4, True), (0, 4, False), (0, 0, True), (1, 2, True)):
        layers = LayerRange(start, stop)
        block = Block.load(tmp_path, spec, layers, device="cpu", dtype=dtype, ends=ends)

        assert sizes.weights_bytes(layers, ends=ends) == block.num_bytes
        assert sizes.kv_bytes_per_token(layers) == block.kv_bytes_per_token


def test_a_model_too_large_to_build_here_is_counted_without_building_it(tmp_path: Path) -> None:
    config = tiny.default_config("llama")
    config.hidden_size, config.intermediate_size, config.head_dim = 8192, 28672, 128
    config.num_attention_heads, config.num_key_value_heads = 64, 8
    config.num_hidden_layers, config.vocab_size = 80, 128256
    config.save_pretrained(tmp_path)

    sizes = read_sizes(read_config(tmp_path), "bfloat16")

    assert sizes.weights_bytes(sizes.whole) == pytest.approx(141e9, rel=0.01)
    assert sizes.kv_bytes_per_token(sizes.whole) == 80 * 2 * 8 * 128 * 2


@pytest.mark.parametrize(
    ("family", "share"), [("mixtral", 0.5), ("qwen3_moe", 0.5), ("gpt_oss", 0.5), ("llama", 1.0)]
)
def test_of_experts_it_is_known_how_many_a_token_reads(family: str, share: float) -> None:
    sizes = read_sizes(tiny.default_config(family), "float32")
    assert sizes.expert_share == share
    for layer in sizes.layers:
        assert (layer.num_expert_weights > 0) == (share < 1)
        assert layer.expert_bytes == 4 * layer.num_expert_weights < layer.weights_bytes


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_tied_head_is_counted_once_in_the_whole_and_twice_in_halves(is_tied: bool) -> None:
    config = tiny.default_config("llama")
    config.tie_word_embeddings = is_tied
    sizes = read_sizes(config, "float32")
    matrix_bytes = 4 * config.vocab_size * config.hidden_size
    assert sizes.tied_bytes == (matrix_bytes if is_tied else 0)
    halves = (sizes.weights_bytes(LayerRange(*each)) for each in ((0, 2), (2, 4)))
    assert sum(halves) - sizes.weights_bytes(sizes.whole) == sizes.tied_bytes


def test_sliding_windows_are_kept_whole() -> None:
    config = tiny.default_config("gemma3_text")
    sizes = read_sizes(config, "bfloat16")
    per_layer = 2 * 2 * config.num_key_value_heads * config.head_dim
    assert {layer.kv_bytes_per_token for layer in sizes.layers} == {per_layer}
