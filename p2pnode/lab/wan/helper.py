"""Helper processes of the lab: Python programs of ours that die when the lab does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from p2pnode.config import inherited_environment
from p2pnode.errors import LocalError
from p2pnode.lab.wan.records import MAX_LINE_BYTES, encode
from p2pnode.net.parent import die_with_parent

ROOT = Path(__file__).parents[3]
"""Where the package p2pnode lies: helpers import the same one."""
ANSWER_WITHIN_S = 20.0


ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""A lab's machines share the cores of one: more threads each would only wait for each other."""


def python_environment() -> dict[str, str]:
    """Our environment, in which this p2pnode can be imported from any folder."""
    inherited = inherited_environment()
    path = [str(ROOT), *filter(None, [inherited.get("PYTHONPATH")])]
    return {**inherited, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(path)}


class Helper:
    """A program that answers each line with one line. ``async with`` starts and ends it."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._name = module.rpartition(".")[2]
        self._asking = asyncio.Lock()
        self._process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            preexec_fn=die_with_parent(),
            env=python_environment(),
            limit=MAX_LINE_BYTES,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def ask(self, *records: Any) -> list[dict[str, Any]]:
        """Send records at once, return their answers; LocalError with what went wrong there."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise LocalError(f"the {self._name} was started without pipes")
        async with self._asking:
            try:
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    stdin.write(b"".join(map(encode, records)))
                    await stdin.drain()
                    lines = [await stdout.readline() for _ in records]
            except (OSError, TimeoutError) as error:
                raise LocalError(f"the {self._name} does not answer: {error}") from error
        return [self._read(line) for line in lines]

    def _read(self, line: bytes) -> dict[str, Any]:
        if not line:
            raise LocalError(f"the {self._name} has ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise LocalError(f"the {self._name} says: {answer['error']}")
        return answer
