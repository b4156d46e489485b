"""The file of answers: each is in it whole and once, whenever this process is killed.

An answer is one line, appended by one write and synced before it counts. What a kill has left of a
half line is cut off when the file is opened again.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from p2pnode.batch.lines import answered_id
from p2pnode.errors import BadRequest, DiskFull
from p2pnode.log import escape


class Answers:
    """Opened by ``with``; raises BadRequest when it is in use, or holds something else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batch-answers")
        self.done: set[str] = set()
        """The custom_ids that have their answer."""

    def __enter__(self) -> Self:
        name = escape(str(self._path))
        try:
            self._file = self._path.open("a+b", buffering=0)
        except OSError as error:
            raise BadRequest(f"cannot write {name}: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read(name)
        except BlockingIOError:
            self._file.close()
            raise BadRequest(f"{name} is being written by another batch") from None
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown()  # what it writes is written whole
        self._file.close()

    async def add(self, custom_id: str, line: bytes) -> None:
        """Returns when it is on the disk; raises DiskFull."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._append, line)
        self.done.add(custom_id)

    def _append(self, line: bytes) -> None:
        at = os.fstat(self._file.fileno()).st_size
        try:
            problem = "" if self._file.write(line) == len(line) else "no room left"
            os.fsync(self._file.fileno())
        except OSError as error:
            problem = error.strerror or str(error)
        if problem:
            self._file.truncate(at)
            what = f"cannot write {escape(str(self._path))}: {problem}"
            raise DiskFull(f"{what}; the same command goes on from here")

    def _read(self, name: str) -> None:
        self._file.seek(0)
        end = 0
        with open(self._path, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    break  # killed in the middle of it
                custom_id = answered_id(line)
                if custom_id is None:
                    raise BadRequest(f"{name}, line {number}: not an answer of a batch")
                self.done.add(custom_id)
                end += len(line)
        self._file.truncate(end)
