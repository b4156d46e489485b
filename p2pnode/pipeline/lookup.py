"""Guessing the next tokens from those that are there: what followed the last time.

Prompt lookup (Saxena, 2023) and its n-gram form in LLMA (Yang et al., "Inference with reference",
2023): no model, no cost, good where an answer repeats its prompt or itself. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST = 4
SHORTEST = 2


class Lookup:
    """Guesses of one session. Keeps where each n-gram was last seen; reads each token once."""

    def __init__(self) -> None:
        self._follows: dict[tuple[int, ...], int] = {}
        """By n-gram: the token that came after its last occurrence."""
        self._num_read = 0

    async def draft(self, known: Sequence[int], guesses: Sequence[int], num: int) -> list[int]:
        """Up to so many tokens that may follow ``known`` and ``guesses``; none without precedent.

        known: only grows from call to call
        """
        self._read(known)
        line = [*known[-LONGEST:], *guesses]
        start = len(line)
        while len(line) < start + num:
            token_id = self._next(line)
            if token_id is None:
                break
            line.append(token_id)
        return line[start:]

    def _next(self, line: Sequence[int]) -> int | None:
        for length in range(min(LONGEST, len(line)), SHORTEST - 1, -1):
            token_id = self._follows.get(tuple(line[-length:]))
            if token_id is not None:
                return token_id
        return None

    def _read(self, known: Sequence[int]) -> None:
        for end in range(self._num_read, len(known)):
            for length in range(SHORTEST, min(LONGEST, end) + 1):
                self._follows[tuple(known[end - length : end])] = known[end]
        self._num_read = len(known)
