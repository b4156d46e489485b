"""What a sender may do before it is cut off: a bucket of tokens, and a score of offences; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from p2pnode.errors import PeerMisbehaved
from p2pnode.types import PeerId

MAX_ACCOUNTS = 4096

T = TypeVar("T")


@dataclass(slots=True)
class Bucket:
    """Tokens that come back at a steady rate, up to a burst."""

    burst: float
    per_s: float
    tokens: float = 0.0
    at: float | None = None

    def take(self, amount: float, now: float) -> bool:
        """Spend so many tokens; False, and nothing spent, when there are too few."""
        since_s = 0.0 if self.at is None else now - self.at
        full = self.burst if self.at is None else self.tokens
        self.tokens, self.at = min(self.burst, full + since_s * self.per_s), now
        if self.tokens < amount:
            return False
        self.tokens -= amount
        return True


@dataclass(slots=True)
class Score:
    """Points of offences, forgiven at a steady rate."""

    points: float = 0.0
    at: float = 0.0

    def add(self, points: float, now: float, forgiven_per_s: float) -> float:
        """The points now."""
        left = max(0.0, self.points - (now - self.at) * forgiven_per_s)
        self.points, self.at = left + points, now
        return self.points


class Guard:
    """Accounts of senders. What each may cost us per second, and how much mischief is too much."""

    BURST = 256.0
    PER_S = 64.0
    FORGIVEN_PER_S = 1.0
    LIMIT = 20.0
    EXCESS = 0.05
    """Points for a thing that there were no tokens for: so many lost races are no crime."""

    def __init__(self) -> None:
        self._buckets: dict[PeerId, Bucket] = {}
        self._scores: dict[PeerId, Score] = {}

    def allows(self, sender: PeerId, now: float, amount: float = 1.0) -> bool:
        """Whether we look at what it sent; else it has cost it points.

        Raises PeerMisbehaved at the limit.
        """
        bucket = self._buckets.get(sender)
        if bucket is None:
            _make_room(self._buckets)
            bucket = self._buckets[sender] = Bucket(self.BURST, self.PER_S)
        if bucket.take(amount, now):
            return True
        self.offended(sender, self.EXCESS * amount, now, "sends too much")
        return False

    def offended(self, sender: PeerId, points: float, now: float, what: str) -> None:
        """Note an offence; raises PeerMisbehaved at the limit."""
        score = self._scores.get(sender)
        if score is None:
            _make_room(self._scores)
            score = self._scores[sender] = Score()
        if score.add(points, now, self.FORGIVEN_PER_S) >= self.LIMIT:
            score.points = 0.0
            raise PeerMisbehaved(sender, f"gossip: {what}, once too often")


def _make_room(accounts: dict[PeerId, T]) -> None:
    if len(accounts) >= MAX_ACCOUNTS:
        del accounts[next(iter(accounts))]
