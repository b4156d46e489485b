"""Answers that a fault has cut short, kept for a while so that they can go on."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2pnode.gateway.errors import ApiError

if TYPE_CHECKING:
    from p2pnode.gateway.answering import Answering


@dataclass(frozen=True, slots=True)
class _Kept:
    answering: Answering
    caller: str
    expires_at: float


class Resumable:
    """At most so many, each for so long, and only for the caller who asked."""

    def __init__(self, max_kept: int, keep_for_s: float, clock: Callable[[], float]) -> None:
        self._max_kept = max_kept
        self._keep_for_s = keep_for_s
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, answering: Answering, caller: str) -> str:
        """Returns the resume id, which nobody can guess."""
        self._forget_expired()
        while len(self._kept) >= self._max_kept:
            self._kept.popitem(last=False)
        name = f"resume-{secrets.token_urlsafe(18)}"
        self._kept[name] = _Kept(answering, caller, self._clock() + self._keep_for_s)
        return name

    def take(self, name: str, caller: str) -> Answering:
        """Hand it out, once; raises ApiError (404), also to another caller."""
        self._forget_expired()
        kept = self._kept.get(name)
        if kept is None or kept.caller != caller:
            what = "no such answer to resume: unknown, taken already, or too old"
            raise ApiError(404, "resume_not_found", what, param="id")
        del self._kept[name]
        return kept.answering

    def _forget_expired(self) -> None:
        now = self._clock()
        while self._kept and next(iter(self._kept.values())).expires_at <= now:
            self._kept.popitem(last=False)
