"""A drafter that knows the answer: what guesses of a known quality are worth can be measured."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence


class Oracle:
    """Guesses each token rightly with a fixed probability (`Drafter`), in a fixed time.

    Of one seed, the same places are guessed rightly however they are asked for, so that ways of
    guessing can be compared without luck.
    """

    def __init__(
        self, line: Sequence[int], share: float, *, token_s: float = 0.001, seed: int = 0
    ) -> None:
        """line: prompt and answer; share: of the guesses that are right"""
        self.num_asked = 0
        self._line = line
        self._share = share
        self._token_s = token_s
        self._seed = seed

    async def draft(self, known: Sequence[int], guesses: Sequence[int], num: int) -> list[int]:
        """See `Drafter.draft`."""
        self.num_asked += 1
        await asyncio.sleep(num * self._token_s)
        start = len(known) + len(guesses)
        return [self._guess(at) for at in range(start, start + num)]

    def _guess(self, at: int) -> int:
        right = self._line[at] if at < len(self._line) else 0
        drawn = hashlib.blake2b(f"{self._seed} {at}".encode(), digest_size=4).digest()
        if int.from_bytes(drawn, "big") < self._share * (1 << 32):
            return right
        return right - 1 if right else 1
