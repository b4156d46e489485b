"""What is fetched from a hub (that we fake), and what its refusals are."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from p2pnode.errors import DiskFull, ModelFilesError, UnknownModel
from p2pnode.model.hub import _translated
from p2pnode.model.source import find_model
from p2pnode.types import LayerRange

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@dataclass
class FakeHub:
    """Behaves like the hub as far as downloads go: large files by SHA-256, others by git's sum."""

    files: dict[str, bytes] = field(default_factory=dict)
    status: int = 200
    """Other than 200: the answer to everything; 401 and 403 as for an unknown or gated model."""
    fetched: list[str] = field(default_factory=list)
    """What was downloaded, in order."""
    url: str = ""

    small: frozenset[str] = frozenset()
    """Weight files that are not in large-file storage."""

    def is_large(self, name: str) -> bool:
        return name.endswith(".safetensors") and name not in self.small

    def info(self, name: str) -> dict[str, Any]:
        content = self.files[name]
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content)}
        entry["oid"] = hashlib.sha1(content).hexdigest()
        if self.is_large(name):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
        return entry


class HubHandler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content_length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        body = self.rfile.read(length).decode()
        if self.hub.status != 200:
            return self.refuse()
        asked = json.loads(body)["paths"] if body.startswith("{") else re.findall(r"[^=&]+", body)
        found = [self.hub.info(name) for name in self.hub.files if name in asked]
        return self.answer(200, json.dumps(found).encode(), content_type="application/json")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if self.hub.status != 200:
            self.refuse()
        elif path.startswith("/api/models/") and "/tree/" in path:
            found = [self.hub.info(name) for name in self.hub.files]
            self.answer(200, json.dumps(found).encode(), content_type="application/json")
        elif path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in self.hub.files]
            info = {"id": "acme/tiny", "sha": COMMIT, "siblings": siblings}
            self.answer(200, json.dumps(info).encode(), content_type="application/json")
        else:
            self.file(path.rpartition("/")[2])

    def refuse(self) -> None:
        codes = {401: "RepoNotFound", 403: "GatedRepo"}
        self.answer(self.hub.status, X_Error_Code=codes.get(self.hub.status, "Error"))

    def file(self, name: str) -> None:
        if name not in self.hub.files:
            self.answer(404, X_Error_Code="EntryNotFound")
            return
        info = self.hub.info(name)
        etag = info["lfs"]["oid"] if "lfs" in info else info["oid"]
        if self.command == "GET":
            self.hub.fetched.append(name)
        self.answer(200, self.hub.files[name], X_Repo_Commit=COMMIT, ETag=f'"{etag}"')


@contextlib.contextmanager
def running(hub: FakeHub) -> Iterator[FakeHub]:
    handler = type("Handler", (HubHandler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


def shards() -> dict[str, bytes]:
    """A model of three layers in three files."""
    files = {f"model-0000{n}-of-00003.safetensors": str(n).encode() * 5000 for n in (1, 2, 3)}
    names = {f"model.layers.{n}.w": file for n, file in enumerate(files)}
    names["model.embed.w"] = "model-00001-of-00003.safetensors"
    return {
        "config.json": b'{"model_type": "llama", "num_hidden_layers": 3}',
        "tokenizer.json": b"{}",
        "model.safetensors.index.json": json.dumps({"weight_map": names}).encode(),
        "pytorch_model.bin": b"pickle",
        "modeling_acme.py": b"import os",
        "README.md": b"text",
        **files,
    }


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with running(FakeHub(shards())) as hub:
        yield hub


def weights_of(hub: FakeHub) -> list[str]:
    return sorted(name[6:11] for name in hub.fetched if name.endswith(".safetensors"))


def test_a_whole_model_is_fetched_and_no_code_or_pickle(cache: Path, hub: FakeHub) -> None:
    told: list[tuple[str, int, int]] = []
    progress = lambda *what: told.append(what)  # noqa: E731
    found = find_model("acme/tiny", cache=cache, hub_url=hub.url, progress=progress)
    assert found.name == "acme/tiny" and not found.is_builtin
    assert weights_of(hub) == ["00001", "00002", "00003"]
    assert {name for name in hub.files if (found.folder / name).exists()} == {
        name for name in hub.files if name.endswith((".json", ".safetensors"))
    }
    assert told and all(0 <= done <= total for _, done, total in told)


def test_only_our_layers_are_fetched_and_the_fingerprint_is_the_same(
    cache: Path, hub: FakeHub, tmp_path: Path
) -> None:
    part = find_model("acme/tiny", cache=cache, layers=LayerRange(1, 2), hub_url=hub.url)
    assert weights_of(hub) == ["00002"]
    none = find_model("acme/tiny", cache=cache, layers=LayerRange(0, 0), hub_url=hub.url)
    assert weights_of(hub) == ["00002"]
    whole = find_model("acme/tiny", cache=tmp_path / "other", hub_url=hub.url)
    assert part.fingerprint == none.fingerprint == whole.fingerprint
    copy = tmp_path / "copy"
    shutil.copytree(whole.folder, copy)
    assert find_model(str(copy), cache=cache).fingerprint == whole.fingerprint


def test_nothing_is_fetched_twice(cache: Path, hub: FakeHub) -> None:
    first = find_model("acme/tiny", cache=cache, hub_url=hub.url)
    before = list(hub.fetched)
    assert find_model("acme/tiny", cache=cache, hub_url=hub.url) == first
    assert hub.fetched == before


def test_what_is_in_the_cache_is_found_without_the_hub(cache: Path, hub: FakeHub) -> None:
    layers = LayerRange(1, 2)
    first = find_model("acme/tiny", cache=cache, layers=layers, hub_url=hub.url)
    nobody = "http://127.0.0.1:9"
    assert find_model("acme/tiny", cache=cache, layers=layers, hub_url=nobody) == first


def test_a_model_in_one_file_is_fetched_unless_no_weights_are_wanted(
    cache: Path, hub: FakeHub
) -> None:
    hub.files = {
        "config.json": b"{}",
        "model.safetensors": b"one file",
    }
    none = find_model("acme/tiny", cache=cache, layers=LayerRange(0, 0), hub_url=hub.url)
    assert not (none.folder / "model.safetensors").exists()
    some = find_model("acme/tiny", cache=cache, layers=LayerRange(1, 2), hub_url=hub.url)
    assert (some.folder / "model.safetensors").read_bytes() == b"one file"
    assert some == none


def test_weights_without_a_sum_on_the_hub_are_fetched_to_be_read(
    cache: Path, hub: FakeHub, tmp_path: Path
) -> None:
    layers = LayerRange(0, 0)
    expected = find_model("acme/tiny", cache=tmp_path / "other", layers=layers, hub_url=hub.url)
    hub.small = frozenset({"model-00002-of-00003.safetensors"})
    hub.fetched.clear()
    found = find_model("acme/tiny", cache=cache, layers=layers, hub_url=hub.url)
    assert weights_of(hub) == ["00002"]
    assert found.fingerprint == expected.fingerprint


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"README.md": b"x"}, "no config.json"),
        ({"config.json": b"{}", "pytorch_model.bin": b"x"}, "no model.safetensors"),
        (
            {"config.json": b"{}", "model.safetensors.index.json": b'{"weight_map": {"a": "x"}}'},
            "no weight file",
        ),
    ],
)
def test_a_hub_model_that_we_cannot_read_is_an_error(
    cache: Path, hub: FakeHub, files: dict[str, bytes], says: str
) -> None:
    hub.files = files
    with pytest.raises(ModelFilesError, match=says):
        find_model("acme/tiny", cache=cache, hub_url=hub.url)


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (401, UnknownModel, "no such model on the hub .a private one needs HF_TOKEN"),
        (403, ModelFilesError, "gated: accept its terms"),
        (500, ModelFilesError, "cannot be reached"),
    ],
)
def test_a_refusal_of_the_hub_says_what_to_do(
    cache: Path, hub: FakeHub, status: int, error: type[Exception], says: str
) -> None:
    hub.status = status
    with pytest.raises(error, match=says):
        find_model("acme/tiny", cache=cache, hub_url=hub.url)


def test_an_unreachable_hub_is_an_error_that_says_so(cache: Path) -> None:
    with pytest.raises(ModelFilesError, match="cannot be reached; try again"):
        find_model("acme/tiny", cache=cache, hub_url="http://127.0.0.1:9")


def test_a_full_disk_is_an_error_of_its_own() -> None:
    with pytest.raises(DiskFull, match="acme/tiny"), _translated("acme/tiny"):
        raise OSError(28, "No space left on device")


def test_a_cache_that_cannot_be_made_is_an_error(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelFilesError, match="fetching acme/tiny failed"):
        find_model("acme/tiny", cache=tmp_path / "file", hub_url=hub.url)
