"""The fingerprint changes with everything that makes the model, and with nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from p2pnode.errors import ModelFilesError
from p2pnode.model.fingerprint import CACHE_FILE, WeightFile, fingerprint

CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "rope_parameters": {"rope_theta": 1e4},
    "transformers_version": "5.0.0",
}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of two weight files."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    shards = {name: f"model-0000{n}-of-00002.safetensors" for n, name in enumerate("ab", 1)}
    for name, shard in shards.items():
        (folder / shard).write_bytes(name.encode() * 1000)
    index = {"weight_map": {f"{name}.weight": shard for name, shard in shards.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_it_is_the_stated_sum(folder: Path, cache: Path) -> None:
    files = {
        f"model-0000{n}-of-00002.safetensors": hashlib.sha256(name * 1000).hexdigest()
        for n, name in enumerate((b"a", b"b"), 1)
    }
    config = {key: value for key, value in CONFIG.items() if key != "transformers_version"}
    content = {
        "version": 1,
        "config": config,
        "tokenizer": hashlib.sha256(b"{}").hexdigest(),
        "weights": [[name, 1000, digest] for name, digest in sorted(files.items())],
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert fingerprint(folder, cache=cache) == hashlib.sha256(text.encode()).hexdigest()


def test_it_does_not_depend_on_the_place_or_on_who_wrote_the_config(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    before = fingerprint(folder, cache=cache)
    other = tmp_path / "elsewhere"
    shutil.copytree(folder, other)
    noise = {"transformers_version": "4.1", "_name_or_path": "/x", "torch_dtype": "float16"}
    config = dict(reversed([*(CONFIG | noise).items()]))
    (other / "config.json").write_text(json.dumps(config, indent=4))
    (other / "README.md").write_text("hello")
    (other / "generation_config.json").write_text("{}")
    assert fingerprint(other, cache=tmp_path / "other cache") == before


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "weights", "index", "nested"])
def test_it_changes_with_each_part_of_the_model(folder: Path, cache: Path, file: str) -> None:
    before = fingerprint(folder, cache=cache)
    if file == "config.json":
        (folder / file).write_text(json.dumps(CONFIG | {"num_hidden_layers": 3}))
    elif file == "nested":
        nested = {"rope_parameters": {"rope_theta": 1e5}}
        (folder / "config.json").write_text(json.dumps(CONFIG | nested))
    elif file == "tokenizer.json":
        (folder / file).write_text("{ }")
    elif file == "weights":
        (folder / "model-00002-of-00002.safetensors").write_bytes(b"b" * 999 + b"c")
    else:
        index = {"weight_map": {"a.weight": "model-00001-of-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert fingerprint(folder, cache=cache) != before


def test_a_weight_file_is_read_once(folder: Path, cache: Path) -> None:
    read: list[str] = []
    progress = lambda what, done, total: read.append(what)  # noqa: E731
    before = fingerprint(folder, cache=cache, progress=progress)
    assert len(read) == 2
    assert fingerprint(folder, cache=cache, progress=progress) == before
    assert len(read) == 2
    changed = folder / "model-00001-of-00002.safetensors"
    os.utime(changed, ns=(1, 1))
    assert fingerprint(folder, cache=cache, progress=progress) == before
    assert read[2:] == [f"checking {changed.name}"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"[]", b'{"a": 1}', b'{"PATH": [1000, 1, "x"]}', b"[" * 100_000],
    ids=lambda content: repr(content[:10]),
)
def test_a_corrupted_cache_is_forgotten(folder: Path, cache: Path, content: bytes) -> None:
    before = fingerprint(folder, cache=cache)
    path = str((folder / "model-00001-of-00002.safetensors").resolve())
    (cache / CACHE_FILE).write_bytes(content.replace(b"PATH", path.encode()))
    assert fingerprint(folder, cache=cache) == before
    assert [*cache.iterdir()] == [cache / CACHE_FILE]


def test_a_cache_that_cannot_be_written_does_no_harm(folder: Path, cache: Path) -> None:
    before = fingerprint(folder, cache=cache)
    blocked = folder / "config.json" / "cache"  # below a file
    assert fingerprint(folder, cache=blocked) == before


def test_what_is_gone_from_the_disk_is_dropped_from_the_cache(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    fingerprint(other, cache=cache)
    shutil.rmtree(other)
    fingerprint(folder, cache=cache)
    paths = json.loads((cache / CACHE_FILE).read_text())
    assert len(paths) == 2 and all(path.startswith(str(folder)) for path in paths)


def test_files_known_from_the_hub_need_not_be_here(folder: Path, cache: Path) -> None:
    before = fingerprint(folder, cache=cache)
    missing = folder / "model-00002-of-00002.safetensors"
    known = {missing.name: WeightFile(1000, hashlib.sha256(b"b" * 1000).hexdigest())}
    missing.unlink()
    assert fingerprint(folder, cache=cache, weights=known) == before


def test_a_file_in_the_hubs_cache_is_known_by_its_name(tmp_path: Path, cache: Path) -> None:
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / digest).write_bytes(content)
    (snapshot / "model.safetensors").symlink_to(blobs / digest)
    (snapshot / "config.json").write_text("{}")
    read: list[str] = []
    progress = lambda what, done, total: read.append(what)  # noqa: E731
    here = fingerprint(snapshot, cache=cache, progress=progress)
    assert read == []
    plain = tmp_path / "plain"
    shutil.copytree(snapshot, plain)
    assert fingerprint(plain, cache=cache, progress=progress) == here
    assert len(read) == 1


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda f: (f / "model-00002-of-00002.safetensors").unlink(), "missing"),
        (lambda f: (f / "config.json").unlink(), "config.json"),
        (lambda f: (f / "config.json").write_text("{"), "not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "no JSON object"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{}"), "no weight_map"),
        (lambda f: (f / "model.safetensors.index.json").unlink(), "no weights"),
        (
            lambda f: (f / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "../../secret.safetensors"}}'
            ),
            "no weight file",
        ),
        (
            lambda f: (f / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "pytorch_model.bin"}}'
            ),
            "no weight file",
        ),
    ],
)
def test_a_broken_folder_is_an_error_that_says_what_is_wrong(
    folder: Path, cache: Path, break_it: object, says: str
) -> None:
    assert callable(break_it)
    break_it(folder)
    with pytest.raises(ModelFilesError, match=says):
        fingerprint(folder, cache=cache)


def test_pickled_weights_are_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelFilesError, match="pickled"):
        fingerprint(tmp_path, cache=cache)


def test_a_weight_file_that_is_a_folder_is_an_error(folder: Path, cache: Path) -> None:
    shard = folder / "model-00002-of-00002.safetensors"
    shard.unlink()
    shard.mkdir()
    with pytest.raises(ModelFilesError, match="cannot read"):
        fingerprint(folder, cache=cache)
