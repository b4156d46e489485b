"""Network coordinates from measured round trips (Dabek et al., "Vivaldi", SIGCOMM 2004); pure.

Every peer is a point in space with a height (its access line); springs between points pull them to
where distances predict round trips. The step adapts to how sure both ends are. Against liars:
claims are bounded, no claimed certainty counts for more than `MIN_CLAIMED_ERROR`, one measurement
moves us by `MAX_MOVE_S` at most, and once we know our place, a force far out of the usual is cut to
the usual (Seibert et al., "Newton", 2014, cut such forces as well).
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import TYPE_CHECKING

from p2pnode.types import Coordinate, PeerId

if TYPE_CHECKING:
    import random

STEP = 0.25
"""How much of an error one measurement corrects (the paper's c_c), and how fast our opinion of our
own error changes (c_e)."""
MIN_HEIGHT_S = 1e-5
MAX_PLACE_S = 10.0
MIN_CLAIMED_ERROR = 0.05
MAX_MOVE_S = 0.1
LEAST_PULL_S = 0.1
"""A peer that is nearer than that pulls like one that far: near peers would gather too slowly."""
MAX_RTT_S = 10.0
KNOWN_ERROR = 0.3
"""With less than this we know our place, and forces can be unusual."""
USUAL_FORCES = 4.0
MIN_FORCES = 12
NUM_FORCES = 32
NUM_RTTS = 5
MAX_PEERS = 512


class Vivaldi:
    """Our own coordinate. Places that others claim come checked: finite and within bounds."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._place = (0.0, 0.0, 0.0)
        self._height_s = MIN_HEIGHT_S
        self._error = 1.0
        self._forces: deque[float] = deque(maxlen=NUM_FORCES)
        self._rtts: dict[PeerId, deque[float]] = {}
        self._unused: set[PeerId] = set()

    @property
    def coordinate(self) -> Coordinate:
        """Where we are now."""
        return Coordinate(self._place, self._height_s, self._error)

    def rtt_s(self, peer: PeerId) -> float | None:
        """The median of the last round trips measured to a peer."""
        rtts = self._rtts.get(peer)
        return median(rtts) if rtts else None

    def measured(self, peer: PeerId, rtt_s: float) -> None:
        """A round trip to a peer took so long.

        What cannot be (not finite, not positive, above `MAX_RTT_S`) is ignored.
        """
        if not 0 < rtt_s <= MAX_RTT_S:
            return
        rtts = self._rtts.pop(peer, None) or deque(maxlen=NUM_RTTS)
        rtts.append(rtt_s)
        self._rtts[peer] = rtts
        self._unused.add(peer)
        if len(self._rtts) > MAX_PEERS:
            oldest = next(iter(self._rtts))
            del self._rtts[oldest]
            self._unused.discard(oldest)

    def met(self, peer: PeerId, theirs: Coordinate) -> None:
        """That peer says where it is: move, once for each round trip that was measured to it."""
        if peer in self._unused:
            self._unused.discard(peer)
            self._move(median(self._rtts[peer]), theirs)

    def _move(self, rtt_s: float, theirs: Coordinate) -> None:
        claimed = max(theirs.error, MIN_CLAIMED_ERROR)
        weight = self._error / (self._error + claimed)
        # Who claims to be far away and answers quickly pulls no harder than who is as near as that.
        limit_s = max(rtt_s, LEAST_PULL_S)
        wrong_s = self._usual(max(rtt_s - self.coordinate.rtt_s(theirs), -limit_s))
        share = STEP * weight
        relative = min(abs(wrong_s) / rtt_s, 1.0)
        self._error = min(max(relative * share + self._error * (1 - share), 1e-3), 1.0)
        self._pull(share * wrong_s, theirs)

    def _usual(self, wrong_s: float) -> float:
        """The error of a prediction in seconds, cut to what is usual."""
        limit = math.inf
        if self._error < KNOWN_ERROR and len(self._forces) >= MIN_FORCES:
            limit = USUAL_FORCES * median(self._forces)
        self._forces.append(abs(wrong_s))
        return math.copysign(min(abs(wrong_s), limit), wrong_s)

    def _pull(self, move_s: float, theirs: Coordinate) -> None:
        """Away from them by so much (towards them when negative)."""
        move_s = min(max(move_s, -MAX_MOVE_S), MAX_MOVE_S)
        gap = [ours - other for ours, other in zip(self._place, theirs.place, strict=True)]
        length = math.hypot(*gap)
        heights = self._height_s + theirs.height_s
        if length < 1e-6:  # on the same spot: any direction will do
            gap = [self._rng.gauss(0.0, 1.0) for _ in gap]
            length = math.hypot(*gap)
            total = length = max(length, 1e-9)
        else:
            total = length + heights
        x, y, z = (
            min(max(ours + move_s * part / total, -MAX_PLACE_S), MAX_PLACE_S)
            for ours, part in zip(self._place, gap, strict=True)
        )
        self._place = (x, y, z)
        height_s = self._height_s + move_s * heights / total if total > length else self._height_s
        self._height_s = min(max(height_s, MIN_HEIGHT_S), MAX_PLACE_S)
