"""How a command ends: exit statuses, and the exceptions that are no errors of ours."""

from __future__ import annotations

from typing import Any

from p2pnode.errors import P2PNodeError

WELL, FAILED, USAGE, NO_CHAIN, INTERRUPTED = 0, 1, 2, 3, 130


class Failed(Exception):
    """An error of ours, with what scripts are told besides its kind and message."""

    def __init__(self, error: P2PNodeError, **fields: Any) -> None:
        super().__init__(str(error))
        self.error = error
        self.fields = fields


class ReaderGone(Exception):
    """Whoever read our output has closed it; the command ends, quietly."""


class Interrupted(Exception):
    """A signal ended the command; what it had open is closed.

    Threads that load or download may still run: leave the process without waiting for them.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"interrupted, exit status {status}")
        self.status = status
