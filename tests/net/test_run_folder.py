"""Folders of running processes: short paths, private, and removed after a death."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pnode.errors import LocalError
from p2pnode.net.run_folder import MAX_SOCKET_PATH_BYTES, living, remove_stale, run_folder


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path: pytest's own is too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="p2p-", dir="/tmp") as folder:
        yield Path(folder)


def test_a_folder_lives_as_long_as_its_block(short: Path) -> None:
    run = short / "home" / "run"
    with run_folder(run) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.parent == run
        assert living(run) == [folder]
        (folder / "p2pd.sock").touch()
    assert list(run.iterdir()) == []


def test_what_a_dead_process_left_is_removed_and_the_living_is_not_touched(short: Path) -> None:
    run = short / "run"
    for name, has_lock in (("live-killed", True), ("live-younger", False)):
        (run / name).mkdir(parents=True)
        (run / name / "p2pd.sock").touch()
        if has_lock:
            (run / name / "lock").touch()
    (run / "something-else").mkdir()
    with run_folder(run) as first, run_folder(run) as second:
        names = sorted(path.name for path in run.iterdir())
        assert names == sorted([first.name, second.name, "something-else"])
        assert living(run) == sorted([first, second])


def test_a_home_with_a_long_path_gets_a_short_private_folder(short: Path) -> None:
    run = short / ("long-" * 20) / "run"
    with run_folder(run) as folder:
        assert len(bytes(folder / "p2pclient-12345678901.sock")) <= MAX_SOCKET_PATH_BYTES
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        stale = folder.parent / "live-killed"
        stale.mkdir()
        remove_stale(folder.parent)
        assert not stale.exists()
        assert folder.exists()
    assert not folder.exists()


def test_a_run_that_cannot_be_a_folder_is_a_local_error(short: Path) -> None:
    (short / "run").write_text("")
    with pytest.raises(LocalError, match="File exists"), run_folder(short / "run"):
        pass


def test_the_lock_is_not_inherited_by_children(short: Path) -> None:
    with run_folder(short) as folder:
        descriptors = [int(name) for name in os.listdir("/dev/fd")]
        locks = [fd for fd in descriptors if _path_of(fd) == str(folder / "lock")]
        assert len(locks) == 1
        assert not os.get_inheritable(locks[0])


def _path_of(descriptor: int) -> str:
    try:
        return os.readlink(f"/dev/fd/{descriptor}")
    except OSError:
        return ""
