"""Reading checkpoints: forms that load, and configs that are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from p2pnode.errors import ModelFilesError, ModelUnsupported
from p2pnode.model import tiny
from p2pnode.model.block import Block, Work
from p2pnode.model.check import quiet_transformers
from p2pnode.model.spec import read_config, read_spec
from tests.support.checkpoints import load, save_tiny

TOKENS = torch.arange(3, 12)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def delta(block: Block, model: Any) -> float:
    """Largest difference from the unsplit model's logits."""
    work = Work(cache=block.new_cache(len(TOKENS)), position=0, entry=TOKENS)
    with torch.inference_mode():
        expected = model(TOKENS[None]).logits[0]
    return float((block.logits(block.forward([work])[0]) - expected).abs().max())


def edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def rename(folder: Path, change: Callable[[str], str]) -> None:
    """Give the tensors of a checkpoint other names."""
    file = folder / "model.safetensors"
    tensors = {change(name): tensor.clone() for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


# --- forms of checkpoints


@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_a_checkpoint_in_many_files_loads(family: str, tmp_path: Path) -> None:
    model = save_tiny(tmp_path, family, max_shard_size="100KB")
    assert (tmp_path / "model.safetensors.index.json").exists()

    assert delta(load(tmp_path), model) <= 3e-6


def test_only_the_files_with_our_layers_must_be_there(tmp_path: Path) -> None:
    save_tiny(tmp_path, max_shard_size="100KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    ours = {file for name, file in index.items() if ".layers.1." in name}
    for file in set(index.values()) - ours:
        (tmp_path / file).unlink()

    assert load(tmp_path, 1, 2).num_bytes > 0
    with pytest.raises(ModelFilesError, match=r"model-0.*safetensors"):
        load(tmp_path)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_names_without_the_models_prefix_load(family: str, tmp_path: Path) -> None:
    model = save_tiny(tmp_path, family)
    prefix = model.base_model_prefix + "."
    rename(tmp_path, lambda name: name.removeprefix(prefix))

    assert delta(load(tmp_path), model) <= 3e-6


def test_tied_tensors_may_be_stored_twice_and_are_held_once(tmp_path: Path) -> None:
    model = save_tiny(tmp_path, "gemma")
    once = load(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, file, metadata={"format": "pt"})

    twice = load(tmp_path)

    assert delta(twice, model) <= 3e-6
    assert twice.num_bytes == twice.bytes_read == once.num_bytes


def test_tensors_that_the_model_does_not_have_are_left_alone(tmp_path: Path) -> None:
    model = save_tiny(tmp_path)
    before = load(tmp_path).bytes_read
    file = tmp_path / "model.safetensors"
    tensors = {**load_file(file), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    save_file(tensors, file, metadata={"format": "pt"})

    block = load(tmp_path)

    assert block.bytes_read == before
    assert delta(block, model) <= 3e-6


def test_a_checkpoint_of_another_dtype_is_converted(tmp_path: Path) -> None:
    model = tiny.random_model(tiny.default_config("llama")).to(torch.bfloat16)
    with quiet_transformers():
        model.save_pretrained(tmp_path)

    block = load(tmp_path)

    assert block.num_bytes == 2 * block.bytes_read
    with quiet_transformers():
        whole = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert delta(block, whole) <= 3e-6


# --- what a config may not do


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auto_map": {"AutoModelForCausalLM": "evil.Model"}}, "never run"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantised"),
        ({"model_type": "a_family_of_tomorrow"}, "a newer transformers may"),
        ({"model_type": ["llama"]}, "a newer transformers may"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "not a LlamaForCausalLM"),
        ({"architectures": "LlamaForCausalLM"}, "not a LlamaForCausalLM"),
    ],
)
def test_a_model_that_we_cannot_serve_is_unsupported(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    save_tiny(tmp_path)
    edit_config(tmp_path, **changes)

    with pytest.raises(ModelUnsupported, match=message):
        read_spec(tmp_path, "tiny", "")


def test_code_beside_a_config_is_not_run(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    proof = tmp_path / "executed"
    (tmp_path / "evil.py").write_text(f"open({str(proof)!r}, 'w')")
    edit_config(tmp_path, auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})

    with pytest.raises(ModelUnsupported):
        read_config(tmp_path)

    assert not proof.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": "many"},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": True},
        {"hidden_size": None},
        {"hidden_size": 10**12},
        {"vocab_size": -1},
        {"rope_parameters": 7},
    ],
)
def test_a_config_with_nonsense_in_it_is_named(changes: dict[str, Any], tmp_path: Path) -> None:
    save_tiny(tmp_path)
    edit_config(tmp_path, **changes)

    with pytest.raises((ModelFilesError, ModelUnsupported), match=r"config|built") as caught:
        load(tmp_path)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\xff"])
def test_a_config_that_is_no_table_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")

    with pytest.raises(ModelFilesError, match=r"config\.json"):
        read_spec(tmp_path, "tiny", "")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"config\.json"):
        read_spec(tmp_path, "tiny", "")


def test_weights_that_do_not_match_the_config_are_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    edit_config(tmp_path, intermediate_size=200)

    with pytest.raises(ModelFilesError, match="config and weights do not match"):
        load(tmp_path)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    rename(tmp_path, lambda name: name.replace("layers.2.mlp.up", "layers.2.mlp.gone"))

    assert load(tmp_path, 0, 2).num_bytes > 0
    with pytest.raises(ModelFilesError, match=r"lacks model\.layers\.2\.mlp\.up_proj\.weight"):
        load(tmp_path, 2, 4)
