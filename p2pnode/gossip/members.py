"""Whom to talk to: a few neighbours of all members, in turn, in an order that nobody knows; pure.

SWIM's round robin: each neighbour has its turn before one has it again, so that no failure stays
unnoticed for long. In a small swarm all are neighbours. In a large one links to everybody would
cost too much: each keeps a few at random and replaces one from time to time, so that together they
still watch everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import TYPE_CHECKING

from p2pnode.types import PeerId

if TYPE_CHECKING:
    import random

REPLACE_EVERY_S = 20.0


class Members:
    """Addresses, neighbours, and whose turn it is."""

    def __init__(self, max_neighbours: int, rng: random.Random) -> None:
        self._max_neighbours = max_neighbours
        self._rng = rng
        self._addresses: dict[PeerId, tuple[str, ...]] = {}
        self._neighbours: dict[PeerId, None] = {}
        self._turns: list[PeerId] = []
        self._replaced_at = 0.0

    @property
    def neighbours(self) -> tuple[PeerId, ...]:
        """Whom we talk to at present, those of longest standing first."""
        return tuple(self._neighbours)

    def addresses(self, peer: PeerId) -> tuple[str, ...]:
        """Where it said that it is; may be empty."""
        return self._addresses.get(peer, ())

    def announce(self, addresses: dict[PeerId, tuple[str, ...]]) -> None:
        """What the directory says now."""
        self._addresses = addresses

    def choose(
        self, live: Set[PeerId], has_answered: Callable[[PeerId], bool], now: float
    ) -> list[PeerId]:
        """Fill the neighbours up from those who live; returns those we do not need now.

        Only one with an address, or who has answered before, can be reached.
        """
        dropped = [peer for peer in self._neighbours if peer not in live]
        for peer in dropped:
            del self._neighbours[peer]
        is_full = len(self._neighbours) >= self._max_neighbours
        if is_full and now - self._replaced_at < REPLACE_EVERY_S:
            return dropped
        others = [
            p for p in live - self._neighbours.keys() if self._addresses.get(p) or has_answered(p)
        ]
        if is_full and others:
            dropped.append(next(iter(self._neighbours)))
            del self._neighbours[dropped[-1]]
        self._replaced_at = now if is_full else self._replaced_at
        room = min(self._max_neighbours - len(self._neighbours), len(others))
        self._neighbours.update(dict.fromkeys(self._rng.sample(sorted(others), room)))
        return dropped

    def next(self) -> PeerId | None:
        """Whose turn it is."""
        while True:
            if not self._turns:
                self._turns = list(self._neighbours)
                self._rng.shuffle(self._turns)
                if not self._turns:
                    return None
            peer = self._turns.pop()
            if peer in self._neighbours:
                return peer

    def first(self, peer: PeerId) -> None:
        """Give a neighbour the next turn."""
        if peer in self._neighbours and peer not in self._turns[-1:]:
            self._turns.append(peer)
