"""Nodes running in this home tell each other their addresses through files in its ``run`` folder.

A node keeps its file locked: the lock goes with the process, however it ends. A file that can be
locked is stale, and whoever finds it removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from p2pnode.errors import KeyFileError
from p2pnode.types import PeerId

log = logging.getLogger(__name__)

SUFFIX = ".addr"
MAX_FILE_BYTES = 16 * 1024
LOCK_TRIES = 50
LOCK_RETRY_S = 0.002


@contextlib.contextmanager
def shown_as_running(run_dir: Path, peer: PeerId, addresses: Iterable[str]) -> Iterator[Path]:
    """Let other nodes of this home find us for as long as the block lasts.

    Raises KeyFileError when another process shows the same peer.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / f"{peer}{SUFFIX}"
    with _locked(path) as file:
        file.truncate(0)
        file.write("".join(f"{address}\n" for address in addresses))
        file.flush()
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[TextIO]:
    """The file at that path, held by us; one that is cleared away meanwhile is made again."""
    for _ in range(LOCK_TRIES):
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_there = os.path.samestat(os.fstat(file.fileno()), path.stat())
            except (BlockingIOError, FileNotFoundError):
                is_there = False
            if is_there:
                yield file
                return
        time.sleep(LOCK_RETRY_S)
    raise KeyFileError(f"{path} is held by another process; is this node running already?")


def running_addresses(run_dir: Path) -> tuple[str, ...]:
    """The addresses of the nodes that run in this home now, ours among them."""
    found: list[str] = []
    for path in sorted(run_dir.glob(f"*{SUFFIX}")):
        try:
            found += _read_unless_stale(path)
        except (OSError, UnicodeDecodeError) as error:
            log.debug("running node ignored: file=%s error=%s", path.name, error)
    return tuple(found)


def _read_unless_stale(path: Path) -> list[str]:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read(MAX_FILE_BYTES).split()
        path.unlink(missing_ok=True)
        return []
