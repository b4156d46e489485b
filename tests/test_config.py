"""Defaults, the home, and the files that list peers."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode import config
from p2pnode.config import (
    ClientConfig,
    Home,
    NodeConfig,
    SwarmConfig,
    home,
    public_peers,
    read_address,
    read_join,
    read_peers,
)
from p2pnode.errors import BadRequest, LocalError

PEER = "12D3KooW" + "A" * 44
ADDRESS = f"/ip4/203.0.113.7/tcp/4001/p2p/{PEER}"


def test_the_home_is_the_one_asked_for_then_the_environments_then_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("P2PNODE_HOME", raising=False)
    assert home().folder == tmp_path / ".p2pnode"
    monkeypatch.setenv("P2PNODE_HOME", "")
    assert home().folder == tmp_path / ".p2pnode"
    monkeypatch.setenv("P2PNODE_HOME", "~/elsewhere")
    assert home() == Home(tmp_path / "elsewhere")
    assert home(tmp_path / "asked") == Home(tmp_path / "asked")
    monkeypatch.chdir(tmp_path)
    assert home(Path("here")).folder == tmp_path / "here"


def test_a_home_of_nobody_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PNODE_HOME", "~nobody-of-that-name")
    with pytest.raises(LocalError, match="set P2PNODE_HOME"):
        home()


def test_asking_for_paths_creates_nothing(tmp_path: Path) -> None:
    place = home(tmp_path / "new")
    paths = [place.keys, place.cache, place.run, place.peers]
    assert all(path.parent == tmp_path / "new" for path in paths)
    assert not place.folder.exists()


@pytest.mark.parametrize("cls", [SwarmConfig, NodeConfig, ClientConfig])
def test_every_setting_has_a_default_and_a_docstring(cls: Any) -> None:
    cls()
    source = inspect.getsource(config)
    body = source[source.index(f"class {cls.__name__}") :]
    for setting in dataclasses.fields(cls):
        at = body.index(f"\n    {setting.name}: ")
        after = body[at + 1 :].split("\n", 2)[1]
        assert after.startswith('    """'), f"{cls.__name__}.{setting.name} has no docstring"


@pytest.mark.parametrize("name", ["max_sessions", "min_session_tokens", "prefill_chunk_tokens"])
def test_limits_must_be_positive(name: str) -> None:
    options: dict[str, Any] = {name: 0}
    with pytest.raises(BadRequest, match=f"{name} must be at least 1"):
        NodeConfig(**options)


def test_a_client_never_starts_a_swarm() -> None:
    assert SwarmConfig().starts_swarm and not ClientConfig().swarm.starts_swarm


@pytest.mark.parametrize(
    "address",
    [
        ADDRESS,
        f"/ip6/::1/tcp/4001/p2p/{PEER}",
        f"/ip6/2001:db8::7/udp/4001/quic-v1/p2p/{PEER}",
        f"/dns4/node.example.org/tcp/1/p2p/{PEER}",
        f"/ip4/203.0.113.7/tcp/4001/p2p/{PEER}/p2p-circuit/p2p/{PEER}",
    ],
)
def test_addresses_of_peers_are_taken(address: str) -> None:
    assert read_address(f"  {address}\n") == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "203.0.113.7:4001",
        "/ip4/203.0.113.7/tcp/4001",
        f"/ip4/203.0.113.7/tcp/0/p2p/{PEER}",
        f"/ip4/203.0.113.7/tcp/70000/p2p/{PEER}",
        f"/ip4/203.0.113.7/p2p/{PEER}",
        f"/unix/tmp/socket/p2p/{PEER}",
        "/ip4/203.0.113.7/tcp/4001/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        f"/ip4/203.0.113.7/tcp/4001/p2p/{PEER}x",
        f"{ADDRESS} {ADDRESS}",
        f"/ip4/203.0.113.7\n/tcp/4001/p2p/{PEER}",
        f"/dns/{'a' * 600}/tcp/4001/p2p/{PEER}",
    ],
)
def test_other_texts_are_refused(address: str) -> None:
    with pytest.raises(BadRequest):
        read_address(address)


def test_a_list_has_comments_blank_lines_and_no_doubles() -> None:
    other = ADDRESS.replace("4001", "4002")
    text = f"# the public swarm\r\n\n  {ADDRESS}   # in Berlin\n{other}\n{ADDRESS}\n"
    assert read_peers(text, "list") == (ADDRESS, other)
    assert read_peers("", "list") == read_peers("# nothing yet\n", "list") == ()


def test_an_error_in_a_list_names_the_file_and_the_line() -> None:
    with pytest.raises(BadRequest, match=r"^peers\.txt, line 3: '/ip4/oops.*is not an address"):
        read_peers(f"{ADDRESS}\n\n/ip4/oops\n", "peers.txt")


def test_a_list_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="longer than"):
        read_peers(f"{ADDRESS}\n" * 10_000, "list")
    (tmp_path / "list").write_text("#" * (1 << 20))
    with pytest.raises(BadRequest, match="longer than"):
        read_join(str(tmp_path / "list"))


@given(st.text())
def test_any_text_is_a_list_or_an_error_of_one_line(text: str) -> None:
    try:
        found = read_peers(text, "list")
    except BadRequest as error:
        assert str(error).isprintable()
    else:
        assert all("/p2p/" in address for address in found)


def test_join_takes_an_address_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "peers.txt"
    file.write_text(f"{ADDRESS}\n")
    assert read_join(ADDRESS) == read_join(str(file)) == (ADDRESS,)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", "folder"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: object) -> None:
    file = tmp_path / "peers.txt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content == "folder":
        file.mkdir()
    with pytest.raises(BadRequest):
        read_join(str(file))


def test_the_working_folders_list_goes_before_the_packaged_one(tmp_path: Path) -> None:
    public_peers(tmp_path)  # the packaged one, where there is one, is well formed
    (tmp_path / "bootstrap_peers.txt").write_text(ADDRESS)
    assert public_peers(tmp_path) == (ADDRESS,)
    (tmp_path / "bootstrap_peers.txt").write_text("nonsense")
    with pytest.raises(BadRequest, match=r"bootstrap_peers\.txt, line 1"):
        public_peers(tmp_path)
