"""Who may say what to us: forged, replayed, misdated and too many digests."""

from __future__ import annotations

import random

import pytest

from p2pnode.errors import PeerMisbehaved
from p2pnode.gossip.core import Core
from p2pnode.gossip.digest import Digest, seal_digest
from p2pnode.gossip.messages import MAX_DIGESTS
from p2pnode.net.memory import fake_identity
from p2pnode.types import Health
from tests.gossip.members import (
    ALICE,
    BOB,
    CAROL,
    MALLORY,
    NOW,
    US,
    WALL,
    core,
    digest,
    exchange,
    give,
    told,
)


def test_an_exchange_gives_both_what_they_lack() -> None:
    a, b = told(ALICE), told(BOB)
    give(a, digest(CAROL, 7))
    give(b, digest(CAROL, 9), digest(MALLORY, 3))
    assert exchange(a, b, NOW + 1) <= 3
    for each in (a, b):
        assert each.known.sequence(CAROL.peer) == 9
        assert each.known.sequence(MALLORY.peer) == 3
        assert each.known.sequence(ALICE.peer) > 0
        assert each.known.sequence(BOB.peer) > 0


def test_when_there_is_nothing_to_tell_an_exchange_is_short_and_small() -> None:
    a, b = told(ALICE), told(BOB)
    exchange(a, b)
    opening = a.opening()
    answer = b.receive(ALICE.peer, opening, NOW, WALL)
    assert answer is not None
    assert answer.held == b""
    assert answer.digests == ()
    assert a.receive(BOB.peer, answer, NOW, WALL) is None


def test_a_client_learns_and_tells_nothing() -> None:
    node, client = told(ALICE), core(US, is_client=True)
    assert client.tell(Health(peer=US.peer, sequence=0, issued_at=0.0), NOW, WALL) is None
    exchange(client, node)
    assert set(client.known.snapshot()) == {ALICE.peer}
    assert set(node.known.snapshot()) == {ALICE.peer}


def test_a_forged_digest_is_refused_and_costs_its_sender_dearly() -> None:
    ours = core()
    forged = seal_digest(Health(peer=ALICE.peer, sequence=9, issued_at=WALL), BOB.sign)
    with pytest.raises(PeerMisbehaved, match="forged"):
        for _ in range(5):
            give(ours, forged)
    assert ours.known.sequence(ALICE.peer) == 0


def test_a_signature_is_checked_once_for_each_new_sequence() -> None:
    checked: list[int] = []

    def is_genuine(each: Digest) -> bool:
        checked.append(each.health.sequence)
        return True

    ours = Core(US.peer, US.sign, random.Random(1), max_neighbours=24, is_genuine=is_genuine)
    for sequence in (5, 5, 4, 5, 6, 6):
        give(ours, digest(ALICE, sequence), now=NOW + sequence)
    assert checked == [5, 6]


def test_replays_are_refused_and_cost_their_sender() -> None:
    ours = core()
    give(ours, digest(ALICE, 5))
    with pytest.raises(PeerMisbehaved, match=r"old digests|too much"):
        for _ in range(100):
            give(ours, *[digest(ALICE, 4)] * 10)
    assert ours.known.sequence(ALICE.peer) == 5


def test_a_digest_from_the_future_is_refused_and_one_a_little_ahead_is_not() -> None:
    ours = core()
    give(ours, digest(ALICE, 1, issued_at=WALL + 4.5))
    give(ours, digest(BOB, 1, issued_at=WALL + 5.5))
    assert ours.known.sequence(ALICE.peer) == 1
    assert ours.known.sequence(BOB.peer) == 0
    with pytest.raises(PeerMisbehaved, match="old"):
        for _ in range(60):
            give(ours, digest(BOB, 1, issued_at=WALL + 5.5))


def test_a_digest_that_is_too_old_is_refused() -> None:
    ours = core()
    give(ours, digest(ALICE, 1, issued_at=WALL - 301.0))
    assert ours.known.sequence(ALICE.peer) == 0


def test_an_honest_relay_of_digests_that_our_clock_calls_future_stays_welcome() -> None:
    ours = core()
    for second in range(600):
        late = digest(ALICE, second + 1, issued_at=WALL + second + 6.0)
        give(ours, late, now=NOW + second)


def test_nobody_can_bring_more_than_the_rate() -> None:
    ours = core()
    strangers = [fake_identity(100 + number) for number in range(3 * MAX_DIGESTS)]
    with pytest.raises(PeerMisbehaved, match="too much"):
        for start in range(0, 30):
            batch = [digest(who, start + 1) for who in strangers[:MAX_DIGESTS]]
            give(ours, *batch, sender=MALLORY)


def test_honest_news_comes_through_while_another_floods() -> None:
    ours = core()
    try:
        for sequence in range(2000):
            give(ours, digest(MALLORY, sequence + 1), sender=MALLORY)
    except PeerMisbehaved as error:
        assert error.peer == MALLORY.peer
    give(ours, digest(ALICE, 1), sender=ALICE)
    assert ours.known.sequence(ALICE.peer) == 1


def test_one_who_publishes_without_pause_is_heard_a_few_times_per_second_only() -> None:
    ours = core()
    taken = set()
    for sequence in range(1, 40):
        give(ours, digest(MALLORY, sequence), sender=MALLORY, now=NOW + sequence / 40)
        taken.add(ours.known.sequence(MALLORY.peer))
    assert len(taken) <= 3


def test_strangers_cannot_fill_our_memory() -> None:
    ours = core()
    for number in range(400):
        give(ours, digest(fake_identity(200 + number)), now=NOW + number)
    assert len(ours.known.book) <= 256 + 5


def test_after_a_restart_with_a_clock_set_back_we_are_heard_again() -> None:
    before, after, ours = told(ALICE), core(ALICE), core()
    exchange(before, ours)
    health = Health(peer=ALICE.peer, sequence=0, issued_at=0.0)
    after.tell(health, NOW + 1, WALL - 60)
    exchange(after, ours, NOW + 2)
    after.tell(health, NOW + 3, WALL - 58)
    exchange(after, ours, NOW + 4)
    assert ours.known.snapshot()[ALICE.peer].health.issued_at == WALL - 58


def test_a_peer_that_starts_to_drain_is_told_of_once() -> None:
    ours = core()
    for second, is_draining in enumerate((False, True, True)):
        give(ours, digest(ALICE, second + 1, is_draining=is_draining), now=NOW + second)
    changes = ours.known.take_changes()
    assert [(peer, each.health.is_draining) for peer, each in changes] == [(ALICE.peer, True)]


def test_a_dead_peers_digest_is_not_passed_on() -> None:
    a, b = told(BOB), core(CAROL)
    give(a, digest(ALICE, 5))
    a.answered(ALICE.peer, 0.05, NOW)
    a.failed(ALICE.peer, NOW + 1)
    a.answered(CAROL.peer, 0.05, NOW + 30)
    a.tick(NOW + 30, WALL + 30)
    assert a.known.is_dead(ALICE.peer)
    exchange(b, a, NOW + 30)
    assert b.known.sequence(ALICE.peer) == 0
    assert b.known.sequence(BOB.peer) > 0
