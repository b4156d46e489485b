"""What a home has heard of a private swarm, on disk; shared by all processes of the home.

Items prove themselves (`trust.news`), so a file that somebody else wrote could only keep news from
us. Whoever writes takes in first what others have written.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from p2pnode.errors import BadWarrant
from p2pnode.trust.news import MAX_ITEM_BYTES, MAX_ITEMS, MAX_PER_BRANCH, News

log = logging.getLogger(__name__)

_MAGIC = b"p2pnode news 1\n"
_LENGTH = struct.Struct(">H")
MAX_FILE_BYTES = len(_MAGIC) + (MAX_ITEMS + MAX_PER_BRANCH) * (MAX_ITEM_BYTES + _LENGTH.size)


@dataclass(frozen=True, slots=True)
class NewsFile:
    """One swarm's news in one home."""

    path: Path
    swarm: bytes

    def load(self, *, now: float) -> News:
        """What is in it; nothing without a file."""
        news = News(self.swarm)
        self.merge_into(news, now=now)
        return news

    def merge_into(self, news: News, *, now: float) -> bool:
        """Take in what others have written; whether anything was new. Reports a bad file."""
        try:
            items = _parse(self._read())
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            log.warning("news of the swarm not read: file=%s error=%s", self.path, error)
            return False
        return sum(_takes(news, item, now) for item in items) > 0

    def save(self, news: News, *, now: float) -> None:
        """Write all that is known; failing is reported, never raised."""
        try:
            with self._lock():
                self.merge_into(news, now=now)
                draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
                descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(_MAGIC)
                    file.writelines(_LENGTH.pack(len(item)) + item for item in news.since(0))
                draft.replace(self.path)
        except OSError as error:
            log.warning("news of the swarm not saved: file=%s error=%s", self.path, error)

    def stamp(self) -> tuple[int, int]:
        """Another one when somebody has written."""
        try:
            facts = self.path.stat()
        except OSError:
            return 0, 0
        return facts.st_mtime_ns, facts.st_ino

    def _read(self) -> bytes:
        with self.path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES or not data.startswith(_MAGIC):
            raise ValueError("not a file of news")
        return data[len(_MAGIC) :]

    def _lock(self) -> _Lock:
        return _Lock(self.path.parent)


class _Lock:
    """Of a folder, while the block runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = -1

    def __enter__(self) -> None:
        self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._descriptor)


def _parse(data: bytes) -> list[bytes]:
    items = []
    while data:
        if len(data) < _LENGTH.size:
            raise ValueError("the file ends too early")
        (size,) = _LENGTH.unpack_from(data)
        item, data = data[_LENGTH.size : _LENGTH.size + size], data[_LENGTH.size + size :]
        if len(item) < size:
            raise ValueError("the file ends too early")
        items.append(item)
    return items


def _takes(news: News, item: bytes, now: float) -> bool:
    try:
        return news.add(item, now)
    except BadWarrant as error:
        log.debug("news not believed: error=%s", error)
        return False
