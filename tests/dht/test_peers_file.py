"""The file of last good peers: atomic, bounded, and never believed too much."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.dht.peers_file import MAX_FILE_BYTES, MAX_PEERS, GoodPeer, load_peers, save_peers
from p2pnode.net.memory import fake_peer_id


def good(number: int, seen_at: float = 1.0) -> GoodPeer:
    peer = fake_peer_id(number)
    return GoodPeer(peer, (f"/ip4/192.0.2.1/tcp/{4000 + number}/p2p/{peer}",), seen_at)


def test_peers_come_back_the_last_seen_first(tmp_path: Path) -> None:
    save_peers(tmp_path / "peers.json", [good(1, 5.0), good(2, 7.0)])
    assert load_peers(tmp_path / "peers.json") == (good(2, 7.0), good(1, 5.0))


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert load_peers(tmp_path / "peers.json") == ()


def test_saving_keeps_the_peers_of_other_nodes_in_this_home(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    save_peers(path, [good(1, 5.0)])
    save_peers(path, [good(2, 7.0), good(1, 9.0)])
    assert load_peers(path) == (good(1, 9.0), good(2, 7.0))
    assert [each.name for each in tmp_path.iterdir()] == ["peers.json"], "no draft is left"


def test_only_the_last_seen_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    for number in range(MAX_PEERS + 10):
        save_peers(path, [good(number, float(number))])
    kept = load_peers(path)
    assert len(kept) == MAX_PEERS
    assert kept[0] == good(MAX_PEERS + 9, MAX_PEERS + 9.0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"version": 2, "peers": []}',
        b'{"version": 1, "peers": {}}',
        b'{"version": 1, "peers": [1]}',
        b'{"version": 1, "peers": [{"peer": "x", "addresses": [], "seen_at": 1}]}',
        b'{"version": 1, "peers": [{"peer": 1, "addresses": [], "seen_at": 1}]}',
        b"[" * 100_000,
        b" " * (MAX_FILE_BYTES + 1),
    ],
)
def test_a_damaged_file_is_reported_and_ignored(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "peers.json"
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert load_peers(path) == ()
    assert "last good peers ignored" in caplog.text
    save_peers(path, [good(1)])
    assert load_peers(path) == (good(1),)


@pytest.mark.parametrize("field, value", [("seen_at", "x"), ("addresses", "x"), ("addresses", [1])])
def test_an_entry_of_wrong_types_is_not_believed(tmp_path: Path, field: str, value: object) -> None:
    entry = {"peer": fake_peer_id(1), "addresses": [], "seen_at": 1.0, field: value}
    path = tmp_path / "peers.json"
    path.write_text(json.dumps({"version": 1, "peers": [entry]}))
    assert load_peers(path) == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries({"peer": inner, "addresses": inner, "seen_at": inner})
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_any_json_is_read_or_ignored(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.json"
    path.write_text(json.dumps({"version": 1, "peers": value}))
    assert load_peers(path) == (), "chance writes no peer id"


def test_a_place_that_cannot_be_written_is_reported_not_raised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        save_peers(tmp_path / "no" / "such" / "folder" / "peers.json", [good(1)])
    assert "not saved" in caplog.text
