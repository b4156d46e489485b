"""What this participant has seen of its peers: failures that fade, and how steady they were.

Local: nobody is told, and nobody tells us. Rules:

- timeouts, faults, losses, broken promises and lost hedges add points, which halve every
  `HALF_LIFE_S`; honest refusals and leaving add none;
- with `BACK_OFF_FROM` points or more a failure also makes the peer the last resort, for a time
  that doubles with each point: 30 s after the first failure, 60 s after the second one;
- what points are left, and how often the peer was lost, enter the cost of a chain as seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from p2pnode.routing.histogram import STEP_EDGES_S, UPTIME_EDGES_S, Histogram
from p2pnode.types import PeerId

HALF_LIFE_S = 300.0
BACK_OFF_FROM = 1.0
BACK_OFF_S = 15.0
"""Times 2 to the number of points."""
MAX_BACK_OFF_POINTS = 6.0
POINT_COST_S = 0.05
HAZARD_COST_S = 12.0
"""What a loss per second costs: a stall of 0.2 s, in a session of a minute."""
PRIOR_LOSSES, PRIOR_S = 0.5, 3600.0
"""What is assumed of a peer before anything is known of it."""
MAX_PEERS = 4096
MISSED_AFTER_S = 120.0
"""A peer not seen for longer may have been away: its uptime begins anew."""


class Offence(StrEnum):
    """What can be held against a peer."""

    TIMEOUT = "timeout"
    FAULT = "fault"
    LOST = "lost"
    OUTPACED = "outpaced"
    """Its standby answered first."""
    MISBEHAVED = "misbehaved"


POINTS = {
    Offence.TIMEOUT: 1.0,
    Offence.FAULT: 1.0,
    Offence.LOST: 1.0,
    Offence.OUTPACED: 0.25,
    Offence.MISBEHAVED: 4.0,
}


@dataclass(slots=True)
class PeerRecord:
    """What is remembered of one peer; times as the caller's clock gives them."""

    points: float = 0.0
    """As they were at ``as_of``."""
    as_of: float = 0.0
    last_resort_until: float = float("-inf")
    offences: Counter[Offence] = field(default_factory=Counter)
    steps: Histogram = field(default_factory=lambda: Histogram(STEP_EDGES_S))
    """The times of decode steps, seen from here."""
    uptimes: Histogram = field(default_factory=lambda: Histogram(UPTIME_EDGES_S))
    """How long it had been there each time that it was lost."""
    seen_since: float | None = None
    """Without a break, as far as we looked; None: it is not there."""
    seen_at: float = 0.0
    watched_s: float = 0.0
    """In all that time together."""

    def score(self, now: float) -> float:
        """The points that have not faded; 0 is spotless."""
        return float(self.points * 2.0 ** (-max(0.0, now - self.as_of) / HALF_LIFE_S))

    @property
    def hazard_per_s(self) -> float:
        """How often it is lost, on the average; an assumption while little is known."""
        return (self.offences[Offence.LOST] + PRIOR_LOSSES) / (self.watched_s + PRIOR_S)


class Reputation:
    """The records of the peers that matter; the least blamed are forgotten first when full."""

    def __init__(self) -> None:
        self._records: dict[PeerId, PeerRecord] = {}

    def records(self) -> dict[PeerId, PeerRecord]:
        """What is known of each peer, to be shown."""
        return dict(self._records)

    def blame(self, peer: PeerId, offence: Offence, now: float) -> None:
        """It has failed us."""
        record = self._of(peer, now)
        record.points = record.score(now) + POINTS[offence]
        record.as_of = now
        record.offences[offence] += 1
        if offence is Offence.LOST:
            self._lost(record, now)
        if record.points >= BACK_OFF_FROM:
            for_s = BACK_OFF_S * 2.0 ** min(record.points, MAX_BACK_OFF_POINTS)
            record.last_resort_until = max(record.last_resort_until, now + for_s)

    def measured(self, peer: PeerId, step_s: float, now: float) -> None:
        """A decode step of it took so long."""
        self._of(peer, now).steps.add(step_s)

    def saw(self, peers: Iterable[PeerId], now: float) -> None:
        """They are there now."""
        for peer in peers:
            record = self._of(peer, now)
            if record.seen_since is None or now - record.seen_at > MISSED_AFTER_S:
                record.seen_since = now
            else:
                record.watched_s += now - record.seen_at
            record.seen_at = now

    def is_last_resort(self, peer: PeerId, now: float) -> bool:
        """Whether it backs off."""
        record = self._records.get(peer)
        return record is not None and record.last_resort_until > now

    def last_resorts(self, now: float) -> frozenset[PeerId]:
        """All of which that is true."""
        return frozenset(p for p, each in self._records.items() if each.last_resort_until > now)

    def risk_s(self, peers: Iterable[PeerId], now: float) -> dict[PeerId, float]:
        """What the failures of each may cost, as seconds per token."""
        unknown = PeerRecord()
        risks = {}
        for peer in peers:
            record = self._records.get(peer, unknown)
            hazard_s = HAZARD_COST_S * record.hazard_per_s
            risks[peer] = POINT_COST_S * record.score(now) + hazard_s
        return risks

    def _lost(self, record: PeerRecord, now: float) -> None:
        if record.seen_since is not None:
            record.uptimes.add(now - record.seen_since)
            record.seen_since = None

    def _of(self, peer: PeerId, now: float) -> PeerRecord:
        record = self._records.get(peer)
        if record is None:
            if len(self._records) >= MAX_PEERS:
                del self._records[min(self._records, key=lambda p: self._records[p].score(now))]
            record = self._records[peer] = PeerRecord()
        return record
