"""The tokens of one session as its first hop gets them: those that are known, then guesses.

Rules: a known token enters once, in order. Guesses follow the last known one. A token that comes
and is not the guess for its place undoes all guesses: a new branch begins, in which that token is
sent next. So hops hold, in the current branch, rows of exactly these tokens.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Flight:
    """One step on its way through the hops."""

    position: int
    stop: int
    sent_at: float
    is_handed: bool = False
    """Whether it has begun without us: the last hop has handed the first one its token."""
    heard: dict[int, float] = field(default_factory=dict)
    """By the hop's index: when it said that it had done it."""

    @property
    def num_tokens(self) -> int:
        """How many the step runs."""
        return self.stop - self.position


class Line:
    """What was sent and what is known, by one client's session; in one epoch at a time."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self.tokens = list(prompt)
        """All that are known; only grows."""
        self.num_given = len(prompt)
        """Those that came from the client itself."""
        self.guesses: list[int] = []
        """What was sent behind them."""
        self.sent = 0
        """Positions that the first hop was sent."""
        self.branch = 0
        self._has_ring = self._is_handed = False
        """Whether there is a ring, and the last hop hands the newest token round in it: it was
        nobody's guess."""
        self.flights: deque[Flight] = deque()
        """Steps whose output has not come, in order."""
        self.on_turn: Callable[[], None] = nobody_drafts
        """Called when a guess was wrong, and a new branch begins."""
        self.moved = asyncio.Event()
        """Set when there may be something to guess, or to guess anew."""

    def restart(self, sent: int, branch: int, *, has_ring: bool = False) -> None:
        """A new epoch and its first branch: hops hold ``sent`` positions, or more further down.

        has_ring: whether the last hop may hand tokens to the first one
        """
        self._has_ring, self._is_handed = has_ring, False
        self.guesses.clear()
        self.flights.clear()
        self.sent, self.branch = sent, branch
        self.moved.set()

    def unsent(self, max_tokens: int) -> list[int]:
        """The next known tokens to send; none when all were."""
        return self.tokens[self.sent : min(len(self.tokens), self.sent + max_tokens)]

    def fly(self, num_tokens: int, now: float) -> None:
        """So many tokens were sent, known ones or guesses."""
        is_newest = self.sent == len(self.tokens) - 1 and not self.guesses
        is_handed = self._is_handed and is_newest
        self.flights.append(Flight(self.sent, self.sent + num_tokens, now, is_handed))
        self.sent += num_tokens
        self.moved.set()

    @property
    def num_settled(self) -> int:
        """How many of the known tokens hops have in the current branch, or will have soon."""
        return min(self.sent, len(self.tokens))

    def confirm(self, token_id: int) -> bool | None:
        """Another token is known. Returns whether it was guessed rightly; None: not guessed."""
        self.tokens.append(token_id)
        self.moved.set()
        self._is_handed = self._has_ring and not self.guesses
        if not self.guesses:
            return None
        if self.guesses.pop(0) == token_id:
            return True
        self.guesses.clear()
        self.flights.clear()
        self.sent = len(self.tokens) - 1
        self.branch += 1
        self.on_turn()
        return False

    @property
    def awaited(self) -> Flight | None:
        """The step whose output has the next token; None when it was not sent."""
        needed = len(self.tokens) - 1
        while self.flights and self.flights[0].stop <= needed:
            self.flights.popleft()
        return self.flights[0] if self.flights else None

    def heard(self, index: int, position: int, now: float) -> list[Flight]:
        """A hop has done all below ``position``; returns the steps that this is news of."""
        news = []
        for flight in self.flights:
            if flight.stop > position:
                break
            if index not in flight.heard:
                flight.heard[index] = now
                news.append(flight)
        return news


def nobody_drafts() -> None:
    """What a turn means then."""
