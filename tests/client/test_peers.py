"""What a client shows of its peers' record."""

from __future__ import annotations

from p2pnode.client.peers import PeerSeen, peers_seen
from p2pnode.routing.reputation import Offence, Reputation
from p2pnode.types import LayerRange
from tests.support.peers import announced, peer, view

A, B, C = peer("A"), peer("B"), peer("C")
SWARM = view(announced("A", "3-8"), announced("B", "0-2"), announced("C", "0-8"))


def seen(reputation: Reputation, now: float) -> list[PeerSeen]:
    return list(peers_seen(reputation, SWARM, now))


def test_only_who_has_worked_or_failed_is_shown_in_the_order_of_layers() -> None:
    reputation = Reputation()
    reputation.saw([A, B, C], 0.0)
    reputation.measured(A, 0.03, 1.0)
    reputation.measured(B, 0.05, 1.0)
    reputation.blame(peer("D"), Offence.TIMEOUT, 1.0)
    shown = seen(reputation, 10.0)
    assert [each.peer for each in shown] == [B, A, peer("D")]
    assert [each.layers for each in shown] == [LayerRange(0, 3), LayerRange(3, 9), None]
    assert [each.there_s for each in shown] == [10.0, 10.0, None]
    assert [each.steps.quantile(0.5) for each in shown] == [0.064, 0.032, None]


def test_failures_fade_and_back_off_ends() -> None:
    reputation = Reputation()
    for offence in (Offence.OUTPACED, Offence.TIMEOUT, Offence.OUTPACED):
        reputation.blame(A, offence, 0.0)
    (early,), (late,) = seen(reputation, 0.0), seen(reputation, 900.0)
    assert early.failures == late.failures == (("outpaced", 2), ("timeout", 1))
    assert early.score == 1.5
    assert late.score == 1.5 / 8
    assert early.back_off_s > 30.0
    assert late.back_off_s == 0.0


def test_a_loss_ends_an_uptime() -> None:
    reputation = Reputation()
    for now in (0.0, 60.0, 120.0):
        reputation.saw([A], now)
    reputation.blame(A, Offence.LOST, 130.0)
    (lost,) = seen(reputation, 130.0)
    assert lost.there_s is None
    assert lost.uptimes.quantile(0.5) == 600.0


def test_a_picture_does_not_change_any_more() -> None:
    reputation = Reputation()
    reputation.measured(A, 0.03, 1.0)
    (before,) = seen(reputation, 1.0)
    reputation.measured(A, 0.03, 2.0)
    assert before.steps.total == 1
