"""Where a running process keeps its sockets: a private folder in the home's ``run/``, locked.

Rules:
- one folder per transport, removed when it closes;
- the lock in it dies with the process, so that the next start finds and removes what a SIGKILL
  left, and never touches the living;
- socket paths must be short; where the home's is too long, a private folder under the system's
  temporary one is used, and cleaned in the same way.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from p2pnode.errors import LocalError

MAX_SOCKET_PATH_BYTES = 103
"""macOS allows 103, Linux 107."""
_LONGEST_NAME = "p2pclient-12345678901.sock"
_PREFIX = "live-"
_LOCK = "lock"


@contextlib.contextmanager
def run_folder(run: Path) -> Iterator[Path]:
    """A fresh private folder whose sockets' paths are short enough; raises LocalError.

    First removes the folders that dead processes left behind.
    """
    short = Path(tempfile.gettempdir()) / f"p2pnode-{os.geteuid()}"
    try:
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_stale(run)
        if short.is_dir() and not short.is_symlink():
            remove_stale(short)
        parent = run if _fits(run / f"{_PREFIX}12345678") else _private(short)
        folder, lock = _make(parent)
    except OSError as error:
        raise LocalError(f"cannot make a folder for sockets in {run}: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def living(run: Path) -> list[Path]:
    """The folders in ``run`` of processes that live now, our own included."""
    with _locked(run):
        return [folder for folder in _folders(run) if not _is_stale(folder)]


def remove_stale(parent: Path) -> None:
    """Remove the folders whose processes are dead."""
    with _locked(parent):
        for folder in _folders(parent):
            if _is_stale(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _make(parent: Path) -> tuple[Path, int]:
    # Under the parent's lock nobody sees the folder before its own lock is held.
    with _locked(parent):
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return folder, lock


def _is_stale(folder: Path) -> bool:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob(f"{_PREFIX}*") if path.is_dir())


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / _LONGEST_NAME)) <= MAX_SOCKET_PATH_BYTES


def _private(folder: Path) -> Path:
    """A folder in a place where everybody writes: ours alone, or an error."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    facts = folder.lstat()
    is_ours = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid()
    if not is_ours or facts.st_mode & 0o077:
        raise LocalError(f"{folder} is not a private folder of ours: remove it")
    return folder


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
