"""What a client remembers across its sessions: who failed, which ways are slower than they look.

A peer that was lost is not used until it announces itself anew, or until its health is heard that
it has issued since (then it is the last resort for a while); everything else fades.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

from p2pnode.errors import (
    PeerError,
    PeerFault,
    PeerMisbehaved,
    PeerRefused,
    PeerTimeout,
)
from p2pnode.pipeline.roles import Accused, Forgot, Outpaced
from p2pnode.routing.needs import Avoid, Link
from p2pnode.routing.reputation import Offence, Reputation
from p2pnode.types import Announcement, Chain, Liveness, PeerId, SwarmView

LINK_BROKEN_FOR_S = 60.0
REFUSED_FOR_S = 10.0
MIN_REFUSED_FOR_S = 1.0
MAX_REFUSED_FOR_S = 60.0
"""Whatever the peer says: it must not be asked in a loop, nor be lost for ever."""
UNSEEN_FOR_S = 2.0
"""How long it may take until gossip tells of a session that we have just begun."""
EXCESS_SMOOTHING = 0.1
EXCESS_HALF_LIFE_S = 300.0
MAX_REMEMBERED = 1024


@dataclass(slots=True)
class Excess:
    """By how much steps over a link took longer than predicted, and when we last saw one."""

    excess_s: float
    at: float

    def note(self, excess_s: float, now: float) -> None:
        """Another one."""
        self.excess_s += EXCESS_SMOOTHING * (excess_s - self.excess_s)
        self.at = now

    def now_s(self, now: float) -> float:
        """What is left of it: old measurements give way to predictions again."""
        return float(self.excess_s * 2.0 ** (-(now - self.at) / EXCESS_HALF_LIFE_S))


@dataclass(slots=True)
class Experience:
    """Failures and measurements of this client's sessions."""

    rng: random.Random = field(default_factory=random.Random)
    """Draws that spread sessions over peers of about the same cost."""
    reputation: Reputation = field(default_factory=Reputation)
    lost: dict[PeerId, tuple[int, int | None]] = field(default_factory=dict)
    """The sequence numbers of the announcement that turned out to be stale, and of the health that
    was known then; None: its health would prove nothing."""
    refused: dict[PeerId, float] = field(default_factory=dict)
    """Until when; so are ``links``."""
    links: dict[tuple[PeerId, PeerId], float] = field(default_factory=dict)
    excess: dict[Link, Excess] = field(default_factory=dict)
    _begun: list[tuple[float, tuple[PeerId, ...]]] = field(default_factory=list)

    def avoid(self, view: SwarmView, now: float) -> Avoid:
        """What to avoid at this moment."""
        self.refused = {peer: until for peer, until in self.refused.items() if until > now}
        self.links = {pair: until for pair, until in self.links.items() if until > now}
        lost = {a.peer for a in view.announcements if self._is_lost(a, view)}
        return Avoid(
            frozenset(lost | self.refused.keys()),
            self.reputation.last_resorts(now),
            frozenset(self.links),
        )

    def blame(self, error: PeerError, view: SwarmView, now: float, *, is_linked: bool) -> None:
        """Remember a failure; is_linked: whether we still hear that peer."""
        peer = error.peer
        if isinstance(error, PeerRefused):
            wanted_s = error.retry_after_s or REFUSED_FOR_S
            for_s = min(max(wanted_s, MIN_REFUSED_FOR_S), MAX_REFUSED_FOR_S)
            self.refused[peer] = now + for_s
        elif isinstance(error, Accused):
            for pair in ((error.reporter, peer), (peer, error.reporter)):
                self.links[pair] = now + LINK_BROKEN_FOR_S
        elif isinstance(error, Outpaced):
            self.reputation.blame(peer, Offence.OUTPACED, now)
        elif not isinstance(error, Forgot):
            if not (is_linked and self._may_recover(error, now)):
                self._lose(error, view)
            known = view.health.get(peer)
            if known is None or not known.health.is_draining:
                self.reputation.blame(peer, _offence(error), now)

    def begun(self, chain: Chain, now: float) -> None:
        """A session has been put on these peers."""
        self._begun = [each for each in self._begun if each[0] > now - UNSEEN_FOR_S]
        self._begun.append((now, tuple(hop.peer for hop in chain.hops)))

    def unseen(self, now: float) -> dict[PeerId, int]:
        """How many sessions we have put on each peer so recently that its health cannot tell."""
        counts: dict[PeerId, int] = {}
        for at, peers in self._begun:
            for peer in peers if at > now - UNSEEN_FOR_S else ():
                counts[peer] = counts.get(peer, 0) + 1
        return counts

    def took(self, link: Link, excess_s: float, now: float) -> None:
        """A step over that link took so much longer than predicted (below 0: it was faster)."""
        known = self.excess.pop(link, None) or Excess(excess_s, now)
        known.note(excess_s, now)
        self.excess[link] = known  # again as the last: those in front are the oldest
        while len(self.excess) > MAX_REMEMBERED:
            del self.excess[next(iter(self.excess))]

    def measured_s(self, now: float) -> dict[Link, float]:
        """The corrections that measurements have given, as `Needs` takes them."""
        return {link: each.now_s(now) for link, each in self.excess.items()}

    def _may_recover(self, error: PeerError, now: float) -> bool:
        """Whether it is slow, or has given up a session for the first time."""
        is_first_fault = isinstance(error, PeerFault) and not self.reputation.is_last_resort(
            error.peer, now
        )
        return isinstance(error, PeerTimeout) or is_first_fault

    def _is_lost(self, announcement: Announcement, view: SwarmView) -> bool:
        peer = announcement.peer
        stale, told = self.lost.get(peer, (-1, None))
        if announcement.sequence > stale:
            return False
        known = view.health.get(peer)
        if told is None or known is None or known.liveness is not Liveness.ALIVE:
            return True
        return known.health.sequence <= told

    def _lose(self, error: PeerError, view: SwarmView) -> None:
        peer = error.peer
        announced = [a.sequence for a in view.announcements if a.peer == peer]
        known = view.health.get(peer)
        told = None
        if not isinstance(error, PeerFault | PeerMisbehaved):
            told = known.health.sequence if known is not None else 0
        self.lost.pop(peer, None)
        self.lost[peer] = max(announced, default=0), told
        for oldest in list(itertools.islice(self.lost, max(0, len(self.lost) - MAX_REMEMBERED))):
            del self.lost[oldest]


def _offence(error: PeerError) -> Offence:
    if isinstance(error, PeerTimeout):
        return Offence.TIMEOUT
    if isinstance(error, PeerFault):
        return Offence.FAULT
    return Offence.MISBEHAVED if isinstance(error, PeerMisbehaved) else Offence.LOST
