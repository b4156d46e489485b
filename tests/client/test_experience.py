"""What a client holds against whom, and for how long."""

from __future__ import annotations

import random

import pytest

from p2pnode.client.experience import (
    EXCESS_HALF_LIFE_S,
    MAX_REFUSED_FOR_S,
    MAX_REMEMBERED,
    UNSEEN_FOR_S,
    Experience,
)
from p2pnode.errors import (
    NoChain,
    PeerError,
    PeerFault,
    PeerLost,
    PeerMisbehaved,
    PeerRefused,
    PeerTimeout,
)
from p2pnode.pipeline.roles import Accused, Forgot, Outpaced
from p2pnode.routing.chain import choose_chain
from p2pnode.types import Chain, Hop, LayerRange, Liveness, PeerId, SwarmView
from tests.support.peers import announced, needs, peer, shape, view

A, B = peer("A"), peer("B")
SWARM = view(announced("A", "0-8"), announced("B", "0-8", latency_s=0.02))


def chosen(experience: Experience, now: float = 0.0, swarm: SwarmView = SWARM) -> str:
    peers = [a.peer for a in swarm.announcements]
    asked = needs(
        avoid=experience.avoid(swarm, now),
        risk_s=experience.reputation.risk_s(peers, now),
        measured_s=experience.measured_s(now),
        unseen_sessions=experience.unseen(now),
    )
    return shape(choose_chain(swarm, asked))


def after(*errors: PeerError, is_linked: bool = True, swarm: SwarmView = SWARM) -> Experience:
    experience = Experience(random.Random(0))
    for error in errors:
        experience.blame(error, swarm, 0.0, is_linked=is_linked)
    return experience


def test_nothing_is_held_against_anybody_at_first() -> None:
    assert chosen(Experience()) == "A 0-8"


@pytest.mark.parametrize(
    ("error", "is_linked"),
    [
        (PeerLost(A, "gone"), True),
        (PeerLost(A, "gone"), False),
        (PeerTimeout(A, "silent"), False),
        (PeerFault(A, "no memory"), False),
        (PeerMisbehaved(A, "lied"), True),
    ],
)
def test_an_announcement_is_not_used_after_its_peers_first_failure(
    error: PeerError, is_linked: bool
) -> None:
    experience = after(error, is_linked=is_linked)
    assert chosen(experience, 3600.0) == "B 0-8"
    anew = view(announced("A", "0-8", sequence=2), announced("B", "0-8", latency_s=0.02))
    assert chosen(experience, 3600.0, anew) == "A 0-8"


def test_a_peer_that_announces_itself_anew_at_once_is_the_last_resort_for_a_while() -> None:
    experience = after(PeerLost(A, "gone"), is_linked=False)
    anew = view(announced("A", "0-8", sequence=2), announced("B", "0-8", latency_s=0.2))
    assert chosen(experience, 29.0, anew) == "B 0-8"
    alone = view(announced("A", "0-8", sequence=2))
    assert chosen(experience, 1.0, alone) == "A 0-8"


def test_a_lost_peer_whose_health_is_heard_since_is_the_last_resort() -> None:
    experience = after(PeerLost(A, "gone"), is_linked=False)
    announcements = (announced("A", "0-8"), announced("B", "0-8", latency_s=0.2))
    heard = view(*announcements, A={})
    assert chosen(experience, 1.0, heard) == "B 0-8"
    assert chosen(experience, 1.0, view(announcements[0], A={})) == "A 0-8"
    with pytest.raises(NoChain):
        chosen(experience, 1.0, view(announcements[0], A={"liveness": Liveness.SUSPECT}))
    with pytest.raises(NoChain):
        chosen(after(PeerMisbehaved(A, "lied")), 1.0, view(announcements[0], A={}))


def test_a_peer_that_was_slow_once_is_the_last_resort_and_then_forgiven() -> None:
    experience = after(PeerTimeout(A, "late"))
    assert chosen(experience, 29.0) == "B 0-8"
    assert chosen(experience, 3600.0) == "A 0-8"
    assert experience.lost == {}


def test_a_second_fault_in_a_row_costs_the_announcement() -> None:
    assert A not in after(PeerFault(A, "gap")).lost
    assert A in after(PeerFault(A, "gap"), PeerFault(A, "gap")).lost


def test_an_honest_refusal_is_no_offence_and_asks_again_when_told() -> None:
    experience = after(PeerRefused(A, "full", retry_after_s=5.0))
    assert chosen(experience, 4.0) == "B 0-8"
    assert chosen(experience, 5.0) == "A 0-8"
    assert experience.reputation.records().get(A) is None


def test_a_refusal_cannot_banish_its_peer_for_ever() -> None:
    experience = after(PeerRefused(A, "full", retry_after_s=1e9))
    assert chosen(experience, MAX_REFUSED_FOR_S) == "A 0-8"


def test_leaving_is_no_offence() -> None:
    leaving = view(announced("A", "0-8"), A={"is_draining": True})
    assert after(PeerLost(A, "gone"), swarm=leaving).reputation.records().get(A) is None
    assert after(Forgot(A, "restarted")).reputation.records().get(A) is None
    assert after(Forgot(A, "restarted")).lost == {}


def test_an_accusation_cuts_the_link_and_blames_nobody() -> None:
    experience = after(Accused(B, "cannot reach it", reporter=A))
    assert experience.avoid(SWARM, 0.0).links == {(A, B), (B, A)}
    assert experience.avoid(SWARM, 3600.0).links == frozenset()
    assert experience.reputation.records() == {}


def test_two_that_announce_no_address_may_punch_and_are_tried() -> None:
    hidden = [announced(name, "0-8", addresses=()) for name in "AB"]
    assert Experience().avoid(view(*hidden), 0.0).links == frozenset()


def test_a_lost_hedge_weighs_little_and_a_peer_that_is_always_slow_loses_its_place() -> None:
    assert chosen(after(Outpaced(A, "late")), 600.0) == "A 0-8"
    experience = after(*[Outpaced(A, "late")] * 4)
    assert chosen(experience, 25.0) == "B 0-8"
    assert chosen(experience, 600.0) == "B 0-8", "the score outlives the back-off"
    assert experience.lost == {}, "it is there, only slow"


def test_steps_measured_45_times_slower_cost_a_peer_its_place() -> None:
    experience = Experience()
    experience.took((None, A), 0.45, 0.0)
    assert chosen(experience) == "B 0-8"
    assert chosen(experience, 30 * EXCESS_HALF_LIFE_S) == "A 0-8"


def test_one_late_step_among_many_changes_nothing() -> None:
    experience = Experience()
    for excess_s in [0.0] * 20 + [0.05]:
        experience.took((None, A), excess_s, 0.0)
    assert chosen(experience) == "A 0-8"


def test_our_own_new_sessions_count_until_health_can_tell() -> None:
    experience = Experience()
    experience.begun(Chain((Hop(A, LayerRange(0, 9)),), "float32"), 0.0)
    experience.begun(Chain((Hop(A, LayerRange(0, 9)),), "float32"), 0.0)
    assert chosen(experience, 0.1) == "B 0-8"
    assert chosen(experience, UNSEEN_FOR_S) == "A 0-8"


def test_memory_is_bounded() -> None:
    experience = Experience()
    for number in range(MAX_REMEMBERED + 5):
        name = PeerId(f"peer-{number}")
        experience.took((None, name), 0.1, 0.0)
        experience.blame(PeerLost(name, "gone"), SWARM, 0.0, is_linked=False)
    assert len(experience.excess) == len(experience.lost) == MAX_REMEMBERED
    assert PeerId("peer-0") not in experience.lost
