"""Who is believed to be gone: accusations, refutations, liars."""

from __future__ import annotations

import pytest

from p2pnode.errors import PeerMisbehaved
from p2pnode.gossip.suspicion import seal_suspicion
from p2pnode.types import Health, Liveness
from tests.gossip.members import (
    ALICE,
    BOB,
    CAROL,
    MALLORY,
    NOW,
    WALL,
    core,
    digest,
    exchange,
    give,
    sync,
    told,
)


def test_an_accusation_is_believed_when_it_is_signed_by_a_member_at_the_right_sequence() -> None:
    ours = core()
    give(ours, digest(ALICE, 5), digest(BOB, 2))
    for said in (
        seal_suspicion(BOB.peer, ALICE.peer, 4, BOB.sign),
        seal_suspicion(BOB.peer, ALICE.peer, 6, BOB.sign),
        seal_suspicion(CAROL.peer, ALICE.peer, 5, CAROL.sign),
    ):
        ours.receive(BOB.peer, sync(suspicions=[said.data]), NOW, WALL)
    assert ours.known.is_alive(ALICE.peer)
    right = seal_suspicion(BOB.peer, ALICE.peer, 5, BOB.sign)
    ours.receive(BOB.peer, sync(suspicions=[right.data]), NOW, WALL)
    assert ours.known.snapshot()[ALICE.peer].liveness is Liveness.SUSPECT


def test_a_forged_accusation_costs_its_sender() -> None:
    ours = core()
    give(ours, digest(ALICE, 5), digest(BOB, 2))
    forged = seal_suspicion(BOB.peer, ALICE.peer, 5, MALLORY.sign)
    with pytest.raises(PeerMisbehaved, match="forged"):
        for _ in range(5):
            ours.receive(MALLORY.peer, sync(suspicions=[forged.data]), NOW, WALL)
    assert ours.known.is_alive(ALICE.peer)


def test_whoever_has_just_answered_us_is_not_suspected_on_hearsay() -> None:
    ours = core()
    give(ours, digest(ALICE, 5), digest(BOB, 2))
    ours.answered(ALICE.peer, 0.05, NOW)
    said = seal_suspicion(BOB.peer, ALICE.peer, 5, BOB.sign)
    ours.receive(BOB.peer, sync(suspicions=[said.data]), NOW + 1, WALL)
    assert ours.known.is_alive(ALICE.peer)


def test_a_liar_runs_out_of_accusations() -> None:
    ours = core()
    give(ours, digest(MALLORY, 1))
    times_suspected = 0
    for sequence in range(1, 40):
        now = NOW + sequence
        give(ours, digest(ALICE, sequence), now=now)
        said = seal_suspicion(MALLORY.peer, ALICE.peer, sequence, MALLORY.sign)
        ours.receive(MALLORY.peer, sync(suspicions=[said.data]), now, WALL)
        times_suspected += not ours.known.is_alive(ALICE.peer)
    assert 0 < times_suspected <= 12


def test_the_accused_refutes_at_once_and_then_all_believe_it() -> None:
    accused, ours = told(ALICE), core()
    give(ours, digest(BOB, 2))
    exchange(accused, ours)
    give(accused, digest(BOB, 2))
    sequence = ours.known.sequence(ALICE.peer)
    said = seal_suspicion(BOB.peer, ALICE.peer, sequence, BOB.sign)
    for each in (ours, accused):
        each.receive(BOB.peer, sync(suspicions=[said.data]), NOW + 5, WALL)
    assert not ours.known.is_alive(ALICE.peer)
    health = Health(peer=ALICE.peer, sequence=0, issued_at=0.0)
    refutation = accused.tell(health, NOW + 6, WALL + 6)
    assert refutation is not None
    ours.receive(ALICE.peer, refutation, NOW + 6, WALL + 6)
    assert ours.known.is_alive(ALICE.peer)
    assert [peer for peer, _ in ours.known.take_changes()] == [ALICE.peer]


def test_a_peer_out_of_our_reach_that_keeps_publishing_is_not_suspected() -> None:
    ours = core()
    for second in range(0, 100, 10):
        give(ours, digest(ALICE, second + 1), now=NOW + second)
        assert ours.failed(ALICE.peer, NOW + second + 5) is None
        assert ours.known.is_alive(ALICE.peer)
    assert ours.failed(ALICE.peer, NOW + 130) is None, "no accusation: it never answered us"
    assert not ours.known.is_alive(ALICE.peer)


def test_what_is_announced_and_does_not_answer_is_known_as_suspect_without_a_health() -> None:
    ours = core()
    assert ALICE.peer not in ours.known.snapshot()
    ours.failed(ALICE.peer, NOW)
    seen = ours.known.snapshot()[ALICE.peer]
    assert seen.liveness is Liveness.SUSPECT
    assert seen.health.sequence == 0
