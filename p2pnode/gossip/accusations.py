"""Suspicions on their way through the swarm: ours and others', each passed on a few times; pure.

SWIM's dissemination: what is told to a few, each of whom tells a few, reaches everybody after a
number of tellings that grows with the logarithm of the swarm. Whoever accuses pays: accusers have
few words, so that a liar cannot keep the swarm in doubt.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from p2pnode.gossip.digest import Sign
from p2pnode.gossip.guard import MAX_ACCOUNTS, Bucket
from p2pnode.gossip.messages import MAX_SUSPICIONS
from p2pnode.gossip.suspicion import (
    Suspicion,
    is_genuine_suspicion,
    read_suspicion,
    seal_suspicion,
)
from p2pnode.types import PeerId

MAX_SPREADING = 512
ACCUSATIONS_BURST = 8.0
ACCUSATIONS_PER_S = 0.1


@dataclass(slots=True)
class _Spreading:
    said: Suspicion
    tellings: int


class Accusations:
    """What is suspected and still being told."""

    def __init__(
        self,
        peer: PeerId,
        sign: Sign | None,
        is_genuine: Callable[[Suspicion], bool] = is_genuine_suspicion,
    ) -> None:
        self.is_genuine = is_genuine
        self._peer = peer
        self._sign = sign
        self._spreading: dict[bytes, _Spreading] = {}
        self._words: dict[PeerId, Bucket] = {}

    def read(self, data: bytes) -> Suspicion | None:
        """A suspicion in good form, or None when we are spreading it; raises WireError."""
        return None if data in self._spreading else read_suspicion(data)

    def may_accuse(self, accuser: PeerId, num_peers: int, now: float) -> bool:
        """Whether that accuser has words left."""
        words = self._words.get(accuser)
        if words is None:
            if len(self._words) >= MAX_ACCOUNTS:
                del self._words[next(iter(self._words))]
            burst = max(ACCUSATIONS_BURST, num_peers / 4)
            words = self._words[accuser] = Bucket(burst, ACCUSATIONS_PER_S)
        return words.take(1.0, now)

    def accuse(self, accused: PeerId, sequence: int, num_peers: int) -> bytes | None:
        """Our own word, told to all from now on; None for one who tells nothing."""
        if self._sign is None:
            return None
        said = seal_suspicion(self._peer, accused, sequence, self._sign)
        self.spread(said, num_peers)
        return said.data

    def spread(self, said: Suspicion, num_peers: int) -> None:
        """Tell it a few times."""
        if len(self._spreading) < MAX_SPREADING:
            tellings = math.ceil(math.log2(num_peers + 2)) + 1
            self._spreading[said.data] = _Spreading(said, tellings)

    def due(self) -> tuple[bytes, ...]:
        """What goes along with the next message: what was told least."""
        least_told = sorted(self._spreading.items(), key=lambda item: -item[1].tellings)
        chosen = least_told[:MAX_SUSPICIONS]
        for data, spreading in chosen:
            spreading.tellings -= 1
            if spreading.tellings <= 0:
                del self._spreading[data]
        return tuple(data for data, _ in chosen)

    def withdraw(self, accused: PeerId) -> bool:
        """It lives, or its death is no news any more; whether we had accused it ourselves."""
        gone = [data for data, each in self._spreading.items() if each.said.accused == accused]
        ours = any(self._spreading[data].said.accuser == self._peer for data in gone)
        for data in gone:
            del self._spreading[data]
        return ours
