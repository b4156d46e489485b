"""Nodes of one home find each other through files that cannot outlive them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from p2pnode.errors import KeyFileError
from p2pnode.net.memory import fake_peer_id
from p2pnode.swarm.running import running_addresses, shown_as_running

A, B = fake_peer_id(1), fake_peer_id(2)

SHOW_AND_WAIT = """
import sys
from pathlib import Path
from p2pnode.swarm.running import shown_as_running
from p2pnode.types import PeerId
with shown_as_running(Path(sys.argv[1]), PeerId(sys.argv[2]), sys.argv[3:]):
    print("shown", flush=True)
    sys.stdin.read()
"""


def test_a_running_node_is_found_and_gone_when_it_ends(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert running_addresses(run_dir) == ()
    with shown_as_running(run_dir, A, ["/a/1", "/a/2"]):
        with shown_as_running(run_dir, B, ["/b/1"]):
            assert set(running_addresses(run_dir)) == {"/a/1", "/a/2", "/b/1"}
        assert running_addresses(run_dir) == ("/a/1", "/a/2")
    assert running_addresses(run_dir) == ()
    assert list(run_dir.iterdir()) == []


def test_what_a_killed_node_left_is_ignored_and_removed(tmp_path: Path) -> None:
    args = [sys.executable, "-c", SHOW_AND_WAIT, str(tmp_path), A, "/a/1"]
    with subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as node:
        assert node.stdout is not None
        assert node.stdout.readline() == b"shown\n"
        assert running_addresses(tmp_path) == ("/a/1",)
        node.kill()
        node.wait()
    assert len(list(tmp_path.iterdir())) == 1
    assert running_addresses(tmp_path) == ()
    assert list(tmp_path.iterdir()) == []


def test_a_node_takes_over_what_a_killed_one_with_its_key_left(tmp_path: Path) -> None:
    (tmp_path / f"{A}.addr").write_text("/old/1\n")
    with shown_as_running(tmp_path, A, ["/new/1"]):
        assert running_addresses(tmp_path) == ("/new/1",)


def test_the_same_peer_cannot_be_shown_twice(tmp_path: Path) -> None:
    with (
        shown_as_running(tmp_path, A, ["/a/1"]),
        pytest.raises(KeyFileError, match="running already"),
        shown_as_running(tmp_path, A, ["/a/2"]),
    ):
        pass


def test_a_file_that_is_not_text_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "x.addr").write_bytes(b"\xff\xfe")
    (tmp_path / "folder.addr").mkdir()
    assert running_addresses(tmp_path) == ()
