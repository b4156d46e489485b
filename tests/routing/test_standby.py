"""Who stands by for a hop."""

from __future__ import annotations

import pytest

from p2pnode.routing.chain import choose_chain, choose_standby
from p2pnode.types import Chain, Hop, LayerRange, Liveness, SwarmView
from tests.support.peers import NEEDS, announced, at, needs, peer, view, without

CHAIN = Chain(
    (
        Hop(peer("A"), LayerRange(0, 3)),
        Hop(peer("B"), LayerRange(3, 6)),
        Hop(peer("C"), LayerRange(6, 9)),
    ),
    "float32",
)
MEMBERS = (announced("A", "0-2"), announced("B", "3-5"), announced("C", "6-8"))


def standby(swarm: SwarmView, index: int) -> str | None:
    hop = choose_standby(swarm, NEEDS, CHAIN, index)
    return None if hop is None else f"{hop.peer[8:].lstrip('1')} {hop.layers}"


def test_it_runs_exactly_the_layers_of_the_hop() -> None:
    assert standby(view(*MEMBERS, announced("E", "1-8")), 1) == "E 3-5"


def test_a_peer_with_only_a_part_of_the_layers_cannot_stand_by() -> None:
    assert standby(view(*MEMBERS, announced("E", "3-4"), announced("F", "5-8")), 1) is None


def test_of_several_the_fastest_on_the_way_stands_by() -> None:
    swarm = view(
        *MEMBERS,
        announced("E", "3-5"),
        announced("F", "3-5", latency_s=0.011),
        **{name: {"coordinate": at(0.0)} for name in "ABCF"},
        E={"coordinate": at(0.2)},
    )
    assert standby(swarm, 1) == "F 3-5"


def test_a_neighbour_of_the_hop_never_stands_by_and_a_member_only_at_last() -> None:
    wide_neighbour = (announced("A", "0-8"), *MEMBERS[1:])
    assert standby(view(*wide_neighbour), 1) is None
    assert standby(view(*wide_neighbour), 2) == "A 6-8"
    assert standby(view(*wide_neighbour, announced("E", "6-8", latency_s=0.5)), 2) == "E 6-8"


@pytest.mark.parametrize(
    "state", [{"is_draining": True}, {"liveness": Liveness.DEAD}, {"kv_free_tokens": 10}]
)
def test_who_leaves_is_dead_or_full_does_not_stand_by(state: dict[str, object]) -> None:
    swarm = view(*MEMBERS, announced("E", "3-5"))
    assert standby(swarm, 1) == "E 3-5"
    assert standby(view(*MEMBERS, announced("E", "3-5"), E=state), 1) is None


@pytest.mark.parametrize("other", ["bfloat16", "float32+nf4"])
def test_another_numerics_class_is_no_standby(other: str) -> None:
    assert standby(view(*MEMBERS, announced("E", "3-5", numerics=other)), 1) is None


def test_the_ends_need_what_the_ends_do() -> None:
    headless = announced("E", "0-8", offers_head=False)
    assert standby(view(*MEMBERS, headless), 2) is None
    assert standby(view(*MEMBERS, headless), 1) == "E 3-5"


def test_a_standby_can_reach_and_be_reached_by_the_neighbours() -> None:
    swarm = view(*MEMBERS, announced("E", "3-5"))
    for link in ((peer("A"), peer("E")), (peer("E"), peer("C"))):
        cut = without(links=frozenset({link}))
        assert choose_standby(swarm, cut, CHAIN, 1) is None


def test_a_member_whose_announcement_has_expired_still_has_a_standby() -> None:
    assert standby(view(announced("E", "3-5")), 1) == "E 3-5"


def test_a_whole_model_in_one_hop_has_a_standby_too() -> None:
    swarm = view(announced("A", "0-8"), announced("B", "0-8", latency_s=0.1))
    chain = choose_chain(swarm, needs())
    hop = choose_standby(swarm, NEEDS, chain, 0)
    assert hop is not None
    assert hop.peer == peer("B")
