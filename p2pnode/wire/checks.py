"""Checks of fields that several messages have."""

from __future__ import annotations

from p2pnode.types import Tensor
from p2pnode.wire.pages import MAX_PAGES, NAME_BYTES

SESSION_BYTES = 16


def check_session(session: bytes) -> None:
    """Raises ValueError unless it has the length of a session id."""
    if len(session) != SESSION_BYTES:
        raise ValueError(f"session id of {len(session)} bytes, not {SESSION_BYTES}")


def check_token_ids(tensor: Tensor | None) -> None:
    """Raises ValueError unless it is a row of int64."""
    if tensor is not None and (tensor.dtype != "int64" or len(tensor.shape) != 1):
        raise ValueError("token_ids are not int64 [tokens]")


def check_pages(names: bytes) -> None:
    """Raises ValueError unless these are whole names of pages, and not too many."""
    if len(names) % NAME_BYTES or len(names) > MAX_PAGES * NAME_BYTES:
        raise ValueError(f"{len(names)} bytes of page names")
