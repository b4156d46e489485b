"""What is known of each peer: its newest digest, and whether it is believed alive; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from p2pnode.gossip.book import Book
from p2pnode.gossip.detector import Detector
from p2pnode.gossip.digest import KEY_BYTES, Digest, key_of
from p2pnode.types import Health, Liveness, PeerHealth, PeerId

MAX_PEERS = 8192
TIDY_EVERY_S = 5.0
MAX_STRANGERS = 256
"""Peers that no announcement names, of which we keep a digest."""


class Knowledge:
    """Digests and beliefs, and which of them have changed."""

    def __init__(self, peer: PeerId, period_s: float) -> None:
        self.book = Book()
        self.detector = Detector(period_s)
        self.announced: frozenset[PeerId] = frozenset()
        self._peer = peer
        self._learned_at: dict[bytes, float] = {}
        self._changed: dict[PeerId, None] = {}
        self._snapshot: dict[PeerId, PeerHealth] | None = None
        self._live: frozenset[PeerId] | None = None
        self._tidied_at = -math.inf

    def digest(self, peer: PeerId) -> Digest | None:
        """The newest digest of a peer."""
        return self.book.get(short_key(peer))

    def sequence(self, peer: PeerId) -> int:
        """Of its newest health; 0 without one."""
        digest = self.digest(peer)
        return digest.health.sequence if digest else 0

    def silent_s(self, digest: Digest, now: float) -> float:
        """For how long a digest has been the newest of its peer."""
        return now - self._learned_at.get(digest.key, -math.inf)

    def has_room(self, digest: Digest) -> bool:
        """Whether to keep the digest of a peer of which we hold none."""
        is_known = not self.announced or digest.health.peer in self.announced
        num_strangers = len(self.book) - len(self.announced)
        return len(self.book) < MAX_PEERS and (is_known or num_strangers < MAX_STRANGERS)

    def is_alive(self, peer: PeerId) -> bool:
        """Whether nothing is held against it."""
        return self.detector.liveness(peer) is Liveness.ALIVE

    def is_dead(self, peer: PeerId) -> bool:
        """Whether it is believed to be gone."""
        return self.detector.liveness(peer) is Liveness.DEAD

    def live(self) -> frozenset[PeerId]:
        """Members that are not known to be dead, without us."""
        if self._live is None:
            known = self.announced.union(digest.health.peer for digest in self.book)
            dead = self.detector.dead
            self._live = frozenset(p for p in known if p != self._peer and p not in dead)
        return self._live

    def put(self, digest: Digest, now: float) -> None:
        """Take a digest that is believed."""
        if self.book.get(digest.key) is None:
            self._live = None
        self.book.put(digest)
        self._learned_at[digest.key] = now
        self._snapshot = None

    def announce(self, peers: frozenset[PeerId]) -> None:
        """The directory was read."""
        self.announced = peers
        self._snapshot = self._live = None

    def forget_older(self, oldest: float, now: float) -> None:
        """Drop digests issued before that wall-clock time, but not our own; now and then."""
        if now - self._tidied_at < TIDY_EVERY_S:
            return
        self._tidied_at = now
        for digest in self.book:
            peer = digest.health.peer
            if digest.health.issued_at >= oldest or peer == self._peer:
                continue
            self.book.remove(digest.key)
            self._learned_at.pop(digest.key, None)
            self._snapshot = self._live = None
            if peer not in self.announced:
                self.detector.forget(peer)

    def forget_unknown(self) -> None:
        """Believe nothing of peers that neither directory nor gossip tells of any more."""
        for peer in self.detector.known:
            if peer not in self.announced and self.digest(peer) is None:
                self.detector.forget(peer)

    def suspected(self) -> None:
        """The detector suspects somebody new."""
        self._snapshot = None

    def changed(self, peer: PeerId) -> None:
        """That peer died, revived or started to drain."""
        self._snapshot = self._live = None
        self._changed[peer] = None

    def take_changes(self) -> list[tuple[PeerId, PeerHealth]]:
        """Peers that died, revived or started to drain since the last call."""
        changed, self._changed = self._changed, {}
        return [(peer, self._of(peer)) for peer in changed]

    def snapshot(self) -> Mapping[PeerId, PeerHealth]:
        """What is known of each peer; those of which nothing is known are missing."""
        if self._snapshot is None:
            self._snapshot = {d.health.peer: self._of(d.health.peer) for d in self.book}
            for peer in self.announced - self._snapshot.keys():
                if not self.is_alive(peer):
                    self._snapshot[peer] = self._of(peer)
        return self._snapshot

    def _of(self, peer: PeerId) -> PeerHealth:
        digest = self.digest(peer)
        # Of some we have only heard whether they live.
        health = digest.health if digest else Health(peer=peer, sequence=0, issued_at=0.0)
        return PeerHealth(health, self.detector.liveness(peer))


def short_key(peer: PeerId) -> bytes:
    """What names a peer in messages."""
    return key_of(peer)[:KEY_BYTES]
