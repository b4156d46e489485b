"""Weights that strangers wrote: safetensors files and their index."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.errors import ModelFilesError
from p2pnode.model.weights import MAX_HEADER_BYTES, MAX_TENSORS, WeightsFile
from tests.support.checkpoints import load, save_tiny


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
