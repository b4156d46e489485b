"""Reading checkpoints: forms that load, and files that strangers wrote."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from p2pnode.errors import ModelFilesError, ModelUnsupported
from p2pnode.model import tiny
from p2pnode.model.block import Block, Work
from p2pnode.model.check import quiet_transformers
from p2pnode.model.spec import read_config, read_spec
from p2pnode.model.weights import MAX_HEADER_BYTES, MAX_TENSORS, WeightsFile
from p2pnode.types import LayerRange

TOKENS = torch.arange(3, 12)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def save_tiny(folder: Path, family: str = "llama", **options: Any) -> Any:
    """Write a tiny checkpoint; returns the unsplit model."""
    model = tiny.random_model(tiny.default_config(family))
    with quiet_transformers():
        model.save_pretrained(folder, **options)
    return model


def load(folder: Path, start: int = 0, stop: int = 4) -> Block:
    spec = read_spec(folder, "tiny", "")
    return Block.load(folder, spec, LayerRange(start, stop), device="cpu", dtype="float32")


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


# --- safetensors files


def write(file: Path, header: Any, data: bytes = b"", length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    file.write_bytes(struct.pack("<Q", size) + text + data)


def entry(start: int = 0, stop: int = 4, **changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [start, stop], **changes}


HEADERS: list[tuple[str, Any, str]] = [
    ("not JSON", b"{nonsense", "not JSON"),
    ("deep", b"[" * 200_000, "not JSON"),
    ("a list", [], "not a table"),
    ("twice", b'{"a": 1, "a": 2}', "names a tensor twice"),
    ("name with ..", {"../a": entry()}, "the name '../a'"),
    ("name with dots", {"a..b": entry()}, "the name"),
    ("long name", {"a" * 300: entry()}, "the name"),
    ("no fields", {"a": {}}, "does not describe a"),
    ("another field", {"a": entry(more=1)}, "does not describe a"),
    ("not a table", {"a": 7}, "does not describe a"),
    ("unknown dtype", {"a": entry(dtype="F8_E4M3")}, "F8_E4M3"),
    ("dtype no text", {"a": entry(dtype=["F32"])}, "which we do not read"),
    ("shape no list", {"a": entry(shape=1)}, "no shape"),
    ("negative shape", {"a": entry(shape=[-1])}, "no shape"),
    ("true in shape", {"a": entry(shape=[True])}, "no shape"),
    ("fraction", {"a": entry(shape=[1.0])}, "no shape"),
    ("deep shape", {"a": entry(shape=[1] * 9)}, "no shape"),
    ("huge shape", {"a": entry(shape=[1 << 61, 1 << 61])}, "cut or corrupted"),
    ("three offsets", {"a": {**entry(), "data_offsets": [0, 2, 4]}}, "no offsets"),
    ("backwards", {"a": entry(4, 0)}, "cut or corrupted"),
    ("beyond the end", {"a": entry(8, 12)}, "cut or corrupted"),
    ("other size", {"a": entry(0, 8)}, "cut or corrupted"),
    ("overlap", {"a": entry(0, 4), "b": entry(2, 6)}, "overlapping"),
    ("same place", {"a": entry(), "b": entry()}, "overlapping"),
    ("many", {f"t{i}": entry(0, 0, shape=[0]) for i in range(MAX_TENSORS + 1)}, "at most"),
]


@pytest.mark.parametrize(
    ("header", "message"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS]
)
def test_a_header_is_refused_before_anything_is_allocated(
    header: Any, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "model.safetensors"
    write(file, header, bytes(8))

    with pytest.raises(ModelFilesError, match=message) as caught, WeightsFile(file):
        pass

    assert str(file) in str(caught.value)
    assert "again" in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 1 << 40, (1 << 64) - 1, MAX_HEADER_BYTES + 1])
def test_a_header_of_another_length_is_refused(length: int, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write(file, {"a": entry()}, bytes(8), length=length)

    with pytest.raises(ModelFilesError, match="no safetensors header"), WeightsFile(file):
        pass


@pytest.mark.parametrize("size", [0, 3, 8, 40])
def test_a_file_that_ends_too_early_is_refused(size: int, tmp_path: Path) -> None:
    save_tiny(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])

    with pytest.raises(ModelFilesError, match=r"model\.safetensors"):
        load(tmp_path)


def test_a_file_that_lost_its_tail_is_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])

    with pytest.raises(ModelFilesError, match="cut or corrupted"):
        load(tmp_path)


def test_a_file_that_shrinks_while_we_read_it_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write(file, {"a": entry()}, bytes(4))

    with WeightsFile(file) as weights:
        file.write_bytes(file.read_bytes()[:-2])
        with pytest.raises(ModelFilesError, match="ends too early"):
            weights.read("a", torch.float32, "cpu")


@pytest.mark.parametrize(
    "weight_map",
    [None, [], {}, {"a": 7}, {"a": "../b.safetensors"}, {"a": "/etc/passwd"}, {"a": "b.bin"}],
)
def test_an_index_that_points_elsewhere_is_refused(weight_map: Any, tmp_path: Path) -> None:
    save_tiny(tmp_path)
    file = tmp_path / "model.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": weight_map}))

    with pytest.raises(ModelFilesError):
        load(tmp_path)


def test_an_index_that_promises_what_a_file_lacks_is_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path, max_shard_size="100KB")
    file = tmp_path / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    files = sorted(set(index["weight_map"].values()))
    index["weight_map"] = dict.fromkeys(index["weight_map"], files[0])
    file.write_text(json.dumps(index))

    with pytest.raises(ModelFilesError, match=r"lacks .*again"):
        load(tmp_path)


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")

    with pytest.raises(ModelFilesError, match="pickled"):
        load(tmp_path)


@given(st.binary(max_size=200), st.integers(0, 1 << 64 - 1) | st.none())
def test_no_file_does_worse_than_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, length: int | None
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    write(file, data, length=length)
    try:
        with WeightsFile(file) as weights:
            assert sum(e.num_bytes for e in weights.entries.values()) <= len(data)
    except ModelFilesError as error:
        assert str(file) in str(error)
