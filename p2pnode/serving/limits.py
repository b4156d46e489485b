"""The bounds within which a node serves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The numbers that a handler needs."""

    chunk_tokens: int
    session_idle_timeout_s: float
    journal_bytes: int
    """Of one session; so much more is forgotten, oldest rows first."""
    journals_bytes: int
    """Of all sessions together."""
