"""The file of API keys: hashes only, private, changed whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from p2pnode.cli import main
from p2pnode.cli.exits import FAILED, WELL
from p2pnode.errors import BadRequest, KeyFileError
from p2pnode.gateway.keys import KeyFile


def test_a_key_is_found_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "home" / "keys.json")
    assert not file.exists
    key, secret = file.add("alice", requests_per_minute=5)
    file.add("bob")
    assert KeyFile(file.path).find(secret) == key
    assert file.find(secret[:-1]) is None
    assert secret not in file.path.read_text()
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.path.parent.iterdir()] == ["keys.json"]


def test_a_removed_key_is_refused_by_others_who_have_the_file_open(tmp_path: Path) -> None:
    file, other = KeyFile(tmp_path / "keys.json"), KeyFile(tmp_path / "keys.json")
    key, secret = file.add("alice")
    assert other.find(secret)
    file.remove(key.id)
    assert other.find(secret) is None
    assert other.exists, "no key, and still nobody comes in"
    with pytest.raises(BadRequest, match="no API key has the id"):
        file.remove(key.id)


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "a\nb", "\x1b[2J"])
def test_a_name_is_a_short_printable_text(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="printable"):
        KeyFile(tmp_path / "keys.json").add(name)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"keys": [{"id": "1"}]}',
        b'{"keys": [{"id": 1, "name": "a", "sha256": "", "created_at": 0,'
        b' "requests_per_minute": null, "concurrent_requests": null}]}',
    ],
)
def test_a_damaged_file_is_an_error_and_not_an_open_door(damage: bytes, tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    file.add("alice")
    file.path.write_bytes(damage)
    with pytest.raises(KeyFileError, match="not a list of API keys"):
        file.find("p2pnode-any")


def test_the_command_shows_a_key_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def keys(*arguments: str) -> dict[str, Any]:
        command = ["gateway", "keys", *arguments, "--json", "--home", str(tmp_path)]
        assert main.run(command) == (WELL, True)
        shown: dict[str, Any] = json.loads(capsys.readouterr().out)
        return shown

    made = keys("add", "alice", "--rate", "3")
    assert KeyFile(tmp_path / "keys" / "gateway.json").find(made.pop("key"))
    assert keys("list") == {"keys": [made]}
    assert keys("remove", made["id"]) == made
    assert keys("list") == {"keys": []}


def test_a_public_address_without_keys_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["gateway", "--host", "0.0.0.0", "--home", str(tmp_path)]
    assert main.run(command) == (FAILED, True)
    assert "gateway keys add NAME" in capsys.readouterr().err
