"""Who is still there: SWIM with suspicion and refutation, and Lifeguard's patience; pure.

Das, Gupta, Motivala, "SWIM", 2002; Dadgar, Phillips, Currey, "Lifeguard", 2018. The rules:

- a peer that does not answer, neither us nor those that we asked to try, is suspected;
- a suspicion is about a sequence: the next health of that peer, or its answer, refutes it;
- it becomes a death when nobody refutes it in time: the sooner, the more peers have accused it;
- whoever hears from nobody doubts itself, and waits longer.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from p2pnode.types import Liveness, PeerId

SUSPICION_PERIODS = 4.0
"""The shortest suspicion, in periods, times the logarithm of the swarm's size."""
PATIENCE = 3.0
"""The longest one is so many times the shortest: a single accuser may be wrong."""
ENOUGH_ACCUSERS = 4
RECENT_PERIODS = 3.0
"""What a peer has said to us so lately counts for more than what others say about it."""
ALONE_AFTER_PERIODS = 5.0
MAX_DOUBT = 8


@dataclass(slots=True)
class _Suspicion:
    sequence: int
    began_at: float
    accusers: set[PeerId] = field(default_factory=set)


class Detector:
    """Beliefs of one participant about the others; ``period_s`` is the pace of probing."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._suspected: dict[PeerId, _Suspicion] = {}
        self._dead: dict[PeerId, int] = {}
        self._answered_at: dict[PeerId, float] = {}
        self._last_answer_at = -math.inf
        self._doubt = 0

    @property
    def slowness(self) -> int:
        """By how much to stretch our own deadlines: 1, more when it may be us who are slow."""
        return 1 + self._doubt

    @property
    def dead(self) -> Collection[PeerId]:
        """All who are believed to be gone."""
        return self._dead.keys()

    @property
    def known(self) -> set[PeerId]:
        """All of whom we have a belief."""
        return {*self._suspected, *self._dead, *self._answered_at}

    def liveness(self, peer: PeerId) -> Liveness:
        """What we believe."""
        if peer in self._dead:
            return Liveness.DEAD
        return Liveness.SUSPECT if peer in self._suspected else Liveness.ALIVE

    def has_answered(self, peer: PeerId) -> bool:
        """Whether it ever answered us: who never did may only be out of our reach."""
        return peer in self._answered_at

    def is_fresh(self, peer: PeerId, now: float) -> bool:
        """Whether it has answered us so lately that others' doubts do not count."""
        recent_s = RECENT_PERIODS * self._period_s
        return now - self._answered_at.get(peer, -math.inf) < recent_s

    def answered(self, peer: PeerId, now: float) -> bool:
        """It has just answered us; whether that changes what we believe."""
        self._answered_at[peer] = self._last_answer_at = now
        self._doubt = max(0, self._doubt - 1)
        return self._revive(peer)

    def vouched(self, peer: PeerId) -> bool:
        """A helper gets answers from it; whether that changes what we believe."""
        return self._revive(peer)

    def heard(self, peer: PeerId, sequence: int) -> bool:
        """A new health of it has come; whether that changes what we believe."""
        suspicion = self._suspected.get(peer)
        accused = suspicion.sequence if suspicion else self._dead.get(peer)
        return accused is not None and sequence > accused and self._revive(peer)

    def doubted(self) -> None:
        """A probe of ours failed, others suspect us, or we were late: it may be us."""
        self._doubt = min(MAX_DOUBT, self._doubt + 1)

    def accused(self, peer: PeerId, accuser: PeerId, sequence: int, now: float) -> bool:
        """Somebody (we, perhaps) suspects it at that sequence; whether that is news."""
        if peer in self._dead:
            return False
        suspicion = self._suspected.get(peer)
        if suspicion is None or sequence > suspicion.sequence:
            suspicion = self._suspected[peer] = _Suspicion(sequence, now)
        is_full = len(suspicion.accusers) >= ENOUGH_ACCUSERS
        if is_full or sequence < suspicion.sequence or accuser in suspicion.accusers:
            return False
        suspicion.accusers.add(accuser)
        return True

    def expire(self, num_peers: int, now: float) -> list[PeerId]:
        """Those whose suspicion nobody has refuted in time: dead from now on."""
        is_alone = now - self._last_answer_at > ALONE_AFTER_PERIODS * self._period_s
        died = [
            peer
            for peer, suspicion in self._suspected.items()
            if now - suspicion.began_at > self._patience_s(suspicion, num_peers, is_alone)
        ]
        for peer in died:
            self._dead[peer] = self._suspected.pop(peer).sequence
        return died

    def forget(self, peer: PeerId) -> None:
        """It is no member any more."""
        self._suspected.pop(peer, None)
        self._dead.pop(peer, None)
        self._answered_at.pop(peer, None)

    def _patience_s(self, suspicion: _Suspicion, num_peers: int, is_alone: bool) -> float:
        scale = max(1.0, math.log10(max(num_peers, 1)))
        shortest_s = SUSPICION_PERIODS * scale * self._period_s
        longest_s = PATIENCE * shortest_s
        if is_alone:
            return longest_s * (1 + self._doubt)
        enough = min(ENOUGH_ACCUSERS, max(1, num_peers - 1))
        if enough == 1:
            return shortest_s
        share = math.log(max(len(suspicion.accusers), 1)) / math.log(enough)
        return max(shortest_s, longest_s - (longest_s - shortest_s) * share)

    def _revive(self, peer: PeerId) -> bool:
        was_dead = self._dead.pop(peer, None) is not None
        return self._suspected.pop(peer, None) is not None or was_dead
