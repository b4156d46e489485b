"""One participant's gossip without links, tasks and clocks: what comes in, ``now``, what goes out.

``now`` is the loop's time, ``wall`` seconds since the epoch. The shell (`gossip.Gossip`, or a
simulation of a thousand nodes) calls, carries the messages that it gets back, and nothing else.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from p2pnode.errors import WireError
from p2pnode.gossip import pace
from p2pnode.gossip.accusations import Accusations
from p2pnode.gossip.appetite import Appetite
from p2pnode.gossip.book import fitting
from p2pnode.gossip.clock import ClockWatch
from p2pnode.gossip.digest import (
    Digest,
    Sign,
    is_genuine,
    pack_place,
    peek,
    read_digest,
    read_place,
    seal_digest,
)
from p2pnode.gossip.guard import Guard
from p2pnode.gossip.knowledge import Knowledge
from p2pnode.gossip.members import Members
from p2pnode.gossip.messages import NUM_TURNS, Sync, sync_of
from p2pnode.gossip.vivaldi import Vivaldi
from p2pnode.types import Health, PeerId

if TYPE_CHECKING:
    import random

PERIOD_S = 1.0
MAX_FUTURE_S = 5.0
MAX_AGE_S = 300.0
OWN_PACE_S = 0.4
"""Digests of one peer are taken this often; those between are news at the next exchange."""
JITTER = 0.25
"""Of the intervals between healths of ours: a swarm must not speak all at once."""
FIRST = 0.1
"""The first interval may be so short: a swarm that began at once would go on in waves."""
RETRY_DEAD = 0.1
"""The share of turns that go to the dead: a partition may have healed."""

FORGED, MALFORMED, MISDATED, OLD = 5.0, 5.0, 0.5, 0.05
"""Points of each offence. A relay cannot know our clock: that costs it a tenth."""


class Core:
    """The state of gossip at one participant; ``sign`` is None for a client, who tells nothing."""

    def __init__(
        self,
        peer: PeerId,
        sign: Sign | None,
        rng: random.Random,
        *,
        max_neighbours: int,
        read: Callable[[bytes], Digest] = read_digest,
        is_genuine: Callable[[Digest], bool] = is_genuine,
    ) -> None:
        self.peer = peer
        self.known = Knowledge(peer, PERIOD_S)
        self.detector = self.known.detector
        self.members = Members(max_neighbours, rng)
        self.vivaldi = Vivaldi(rng)
        self.guard = Guard()
        self.clock_watch = ClockWatch()
        self._appetite = Appetite()
        self._rng = rng
        self._sign = sign
        self._read = read
        self._is_genuine = is_genuine
        self._accusations = Accusations(peer, sign)
        self._told: Health | None = None
        self._told_at = -math.inf
        self._stretch = 1.0
        self._sequence = 0
        self._is_accused = False

    @property
    def num_peers(self) -> int:
        """Members that are not known to be dead, without us."""
        return len(self.known.live())

    # --- telling

    def tell(
        self, health: Health, now: float, wall: float, *, at_once: bool = False
    ) -> Sync | None:
        """Our own health: published when that is due; then what to send to all neighbours.

        Its sequence, time and coordinate are ours to set.
        """
        if self._sign is None:
            return None
        placed = dataclasses.replace(health, coordinate=self.vivaldi.coordinate)
        since_s = now - self._told_at
        must = at_once or (self._is_accused and since_s >= OWN_PACE_S)
        paced_s = since_s / self._stretch
        if not must and not pace.is_due(self._told, placed, paced_s, self.num_peers):
            return None
        least = 1 - JITTER if self._told else FIRST
        self._stretch = self._rng.uniform(least, 1 + JITTER)
        self._sequence = max(self._sequence + 1, round(wall * 1000))
        dated = dataclasses.replace(placed, sequence=self._sequence, issued_at=wall)
        digest = seal_digest(dated, self._sign)
        self._told, self._told_at, self._is_accused = dated, now, False
        self.known.put(digest, now)
        return sync_of(NUM_TURNS, digests=(digest.data,))

    def opening(self) -> Sync:
        """The first message of an exchange with anybody."""
        held, is_whole = self.known.book.summary()
        is_whole = is_whole and self._appetite.takes_all
        return sync_of(0, held=held, is_whole=is_whole, suspicions=self._accusations.due())

    def receive(self, sender: PeerId, sync: Sync, now: float, wall: float) -> Sync | None:
        """Take what somebody sent; what to answer. Raises PeerMisbehaved at its limit."""
        num_claims = len(sync.digests) + len(sync.suspicions)
        if not self.guard.allows(sender, now, 1.0 + num_claims):
            return None
        self._appetite.received(sync.num_bytes, now)
        if sync.place:
            self.vivaldi.met(sender, read_place(sync.place))
        for data in sync.digests:
            self._take(sender, data, now, wall)
        for data in sync.suspicions:
            self._take_suspicion(sender, data, now)
        return self._answer(sync) if sync.turn < NUM_TURNS else None

    def _answer(self, sync: Sync) -> Sync | None:
        is_opening = sync.turn == 0
        newer, entries = self.known.book.compare(
            sync.held,
            is_whole=sync.is_whole and is_opening,
            offers=is_opening,
            most_asked=self._appetite.num_digests,
        )
        alive = [digest for digest in newer if not self.known.is_dead(digest.health.peer)]
        held = b"".join(entries) if sync.turn < NUM_TURNS - 1 else b""
        if not (alive or held or is_opening):
            return None
        return sync_of(
            sync.turn + 1 if held else NUM_TURNS,
            held=held,
            place=pack_place(self.vivaldi.coordinate) if is_opening else b"",
            digests=fitting(alive),
            suspicions=self._accusations.due() if is_opening else (),
        )

    # --- hearing

    def _take(self, sender: PeerId, data: bytes, now: float, wall: float) -> None:
        try:
            key, sequence = peek(data)
            held = self.known.book.get(key)
            if held is not None and sequence <= held.health.sequence:
                if sequence < held.health.sequence:
                    self.guard.offended(sender, OLD, now, "repeats old digests")
                return
            digest = self._read(data)
        except WireError as error:
            return self.guard.offended(sender, MALFORMED, now, str(error))
        if not self._is_timely(sender, digest, now, wall) or not self._is_wanted(digest, held, now):
            return
        if not self._is_genuine(digest):
            return self.guard.offended(sender, FORGED, now, "sends forged digests")
        self._believe(digest, held, now)

    def _is_timely(self, sender: PeerId, digest: Digest, now: float, wall: float) -> bool:
        age_s = wall - digest.health.issued_at
        if sender == digest.health.peer:
            self.clock_watch.heard(sender, age_s)
        if -MAX_FUTURE_S <= age_s <= MAX_AGE_S:
            return True
        points = MISDATED if sender == digest.health.peer else MISDATED / 10
        self.guard.offended(sender, points, now, f"sends digests that are {age_s:.0f} s old")
        return False

    def _is_wanted(self, digest: Digest, held: Digest | None, now: float) -> bool:
        """Whether to keep it, asked before its signature is looked at."""
        if held is None:
            return self.known.has_room(digest)
        is_paced = self.known.silent_s(held, now) >= OWN_PACE_S
        return is_paced or digest.health.is_draining or not self.known.is_alive(held.health.peer)

    def _believe(self, digest: Digest, held: Digest | None, now: float) -> None:
        health = digest.health
        if health.peer == self.peer:  # of an earlier life of ours
            self._sequence, self._is_accused = max(self._sequence, health.sequence), True
            return
        self.known.put(digest, now)
        was_accused_by_us = self._accusations.withdraw(health.peer)
        is_revived = self.detector.heard(health.peer, health.sequence)
        has_begun_to_drain = health.is_draining and not (held and held.health.is_draining)
        if is_revived or has_begun_to_drain:
            self.known.changed(health.peer)
        if is_revived and was_accused_by_us:  # it may have died after it said this
            self.members.first(health.peer)

    def _take_suspicion(self, sender: PeerId, data: bytes, now: float) -> None:
        try:
            said = self._accusations.read(data)
        except WireError as error:
            return self.guard.offended(sender, MALFORMED, now, str(error))
        if said is None or said.sequence != self.known.sequence(said.accused):
            return  # heard before, refuted, or about what we have not heard of yet
        if said.accuser == self.peer or self.known.digest(said.accuser) is None:
            return
        if not self._accusations.may_accuse(said.accuser, len(self.known.book), now):
            return
        if not self._accusations.is_genuine(said):
            return self.guard.offended(sender, FORGED, now, "sends forged suspicions")
        if said.accused == self.peer:
            self._is_accused = True
            return self.detector.doubted()
        if self.known.is_alive(said.accused):
            self.members.first(said.accused)  # see for ourselves, if we are its neighbour
            if self.detector.is_fresh(said.accused, now):
                return
        if self.detector.accused(said.accused, said.accuser, said.sequence, now):
            self._accusations.spread(said, len(self.known.book))
            self.known.suspected()

    # --- probing

    def next_partner(self, now: float) -> tuple[PeerId | None, list[PeerId]]:
        """Whom to talk to next; and those whose link is no longer needed."""
        live = self.known.live()
        dropped = self.members.choose(live, self.detector.has_answered, now)
        if self.detector.dead and self._rng.random() < RETRY_DEAD:
            dead = self.known.announced.intersection(self.detector.dead)
            if dead:
                return self._rng.choice(sorted(dead)), dropped
        return self.members.next(), dropped

    def helpers(self, about: PeerId, count: int) -> list[PeerId]:
        """Whom to ask to try that peer, in random order."""
        others = (peer for peer in self.members.neighbours if peer != about)
        good = [peer for peer in others if self.known.is_alive(peer)]
        return self._rng.sample(good, min(count, len(good)))

    def answered(self, peer: PeerId, rtt_s: float, now: float) -> None:
        """That peer has answered a ping after so long."""
        if self.detector.answered(peer, now):
            self.known.changed(peer)
        self._accusations.withdraw(peer)
        self.vivaldi.measured(peer, rtt_s)

    def vouched(self, peer: PeerId) -> None:
        """That peer has answered a helper's ping, not ours."""
        if self.detector.vouched(peer):
            self.known.changed(peer)

    def failed(self, peer: PeerId, now: float) -> Sync | None:
        """Nobody gets an answer from that peer; what to send to all neighbours."""
        self.detector.doubted()
        digest = self.known.digest(peer)
        has_answered = self.detector.has_answered(peer)
        if digest is not None and not has_answered:
            if self.known.silent_s(digest, now) < 2 * pace.refresh_s(self.num_peers):
                return None  # it lives, and is only out of our reach
        sequence = self.known.sequence(peer)
        if not self.detector.accused(peer, self.peer, sequence, now):
            return None
        self.known.suspected()
        if digest is None or not has_answered:
            return None  # a belief of ours, no accusation: nobody has to refute it
        said = self._accusations.accuse(peer, sequence, len(self.known.book))
        return sync_of(NUM_TURNS, suspicions=(said,)) if said else None

    def tick(self, now: float, wall: float) -> None:
        """Let time pass: suspicions become deaths, what is old is forgotten."""
        self._appetite.pass_time(now)
        for peer in self.detector.expire(self.num_peers, now):
            self._accusations.withdraw(peer)
            self.known.changed(peer)
        self.known.forget_older(wall - MAX_AGE_S, now)

    def announce(self, addresses: Mapping[PeerId, tuple[str, ...]]) -> None:
        """The directory was read: these are the members, and where they are."""
        self.members.announce(dict(addresses))
        self.known.announce(frozenset(addresses))
        self.known.forget_unknown()
