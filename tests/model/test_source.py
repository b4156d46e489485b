"""What a user may call a model: the built-in one, a folder, a hub id."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors

from p2pnode.errors import ModelFilesError, UnknownModel
from p2pnode.model.hub import wanted_files
from p2pnode.model.source import ModelFiles, builtin_draft, find_model
from p2pnode.types import LayerRange


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.mark.parametrize("name", [None, "builtin", "stories-27"])
def test_the_built_in_model_is_found_by_its_names(cache: Path, name: str | None) -> None:
    found = find_model(name, cache=cache)
    assert found.name == "stories-27" and found.is_builtin
    assert json.loads((found.folder / "config.json").read_text())["num_hidden_layers"] == 27


def test_the_built_in_draft_has_the_tokenizer_of_its_model(cache: Path) -> None:
    model = find_model(None, cache=cache).folder
    assert (builtin_draft() / "tokenizer.json").read_bytes() == (
        model / "tokenizer.json"
    ).read_bytes()
    with safetensors.safe_open(builtin_draft() / "model.safetensors", "pt") as opened:
        assert len(opened.keys()) > 0


def test_a_folder_is_named_by_its_last_part(cache: Path, tmp_path: Path) -> None:
    builtin = find_model(None, cache=cache)
    folder = tmp_path / "my-model"
    shutil.copytree(builtin.folder, folder)
    found = find_model(f"{folder}/../my-model/", cache=cache)
    assert found == ModelFiles("my-model", folder.resolve(), builtin.fingerprint, False)


def test_a_folder_goes_before_a_hub_id(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(find_model(None, cache=cache).folder, tmp_path / "acme" / "tiny")
    monkeypatch.chdir(tmp_path)
    assert find_model("acme/tiny", cache=cache).name == "tiny"


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("", "empty"),
        ("./nowhere", "no folder ./nowhere"),
        ("/no/where", "no folder /no/where"),
        ("~nobody-of-that-name/model", "no folder"),
        ("a/b/c", "no folder a/b/c"),
        ("acme/", "no folder"),
        ("../x", "no folder"),
        ("two words", "neither a folder nor a hub id"),
        ("acme/\x1b[31mred", r"\\x1b"),
    ],
)
def test_what_can_be_no_model_is_refused_without_asking_the_hub(
    cache: Path, model: str, says: str
) -> None:
    with pytest.raises(UnknownModel, match=says):
        find_model(model, cache=cache, hub_url="http://127.0.0.1:9")


def test_a_folder_without_a_config_is_no_model(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"no config\.json"):
        find_model(str(tmp_path), cache=cache)


# --- which files hold which layers

WEIGHTS = {
    "model.embed_tokens.weight": "1",
    "model.layers.0.mlp.experts.7.weight": "1",
    "model.layers.1.mlp.weight": "2",
    "model.layers.2.mlp.weight": "2",
    "model.layers.2.attn.weight": "3",
    "model.layers.3.mlp.weight": "4",
    "model.norm.weight": "5",
    "lm_head.weight": "5",
}


@pytest.mark.parametrize(
    ("layers", "with_ends", "files"),
    [
        (None, False, "12345"),
        (LayerRange(0, 4), False, "12345"),
        (LayerRange(0, 1), False, "15"),
        (LayerRange(1, 2), False, "2"),
        (LayerRange(1, 3), False, "23"),
        (LayerRange(3, 4), False, "145"),
        (LayerRange(0, 0), False, ""),
        (LayerRange(0, 0), True, "15"),
        (LayerRange(2, 3), True, "1235"),
    ],
)
def test_only_files_with_our_layers_and_the_ends_they_touch_are_wanted(
    layers: LayerRange | None, with_ends: bool, files: str
) -> None:
    assert wanted_files(WEIGHTS, layers, with_ends=with_ends) == [*files]
