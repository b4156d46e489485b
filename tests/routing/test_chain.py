"""Choosing and mending chains."""

from __future__ import annotations

import dataclasses

import pytest

from p2pnode.errors import NoChain, PromptTooLong
from p2pnode.routing.chain import choose_chain, mend_chain
from p2pnode.routing.needs import Held
from p2pnode.types import LayerRange, SwarmView
from tests.support.peers import NEEDS, announced, needs, peer, shape, without


def test_a_chain_covers_all_layers_in_order() -> None:
    view = SwarmView((announced("C", "6-8"), announced("A", "0-2"), announced("B", "3-5")))
    assert shape(choose_chain(view, NEEDS)) == "A 0-2, B 3-5, C 6-8"


def test_one_hop_wins_over_three_of_the_same_speed() -> None:
    view = SwarmView(
        (announced("A", "0-2"), announced("B", "3-5"), announced("C", "6-8"), announced("E", "0-8"))
    )
    assert shape(choose_chain(view, NEEDS)) == "E 0-8"


def test_a_boundary_inside_a_range_is_used() -> None:
    view = SwarmView((announced("A", "0-5"), announced("B", "3-8", latency_s=0.001)))
    assert shape(choose_chain(view, NEEDS)) == "A 0-2, B 3-8"


def test_the_faster_of_two_peers_is_chosen_and_the_nearer_one() -> None:
    view = SwarmView((announced("A", "0-8", latency_s=0.2), announced("B", "0-8")))
    assert shape(choose_chain(view, NEEDS)) == "B 0-8"
    far = needs(rtts_s={peer("B"): 1.0, peer("A"): 0.01})
    assert shape(choose_chain(view, far)) == "A 0-8"


def test_who_holds_the_prompt_is_preferred_unless_another_is_faster_all_the_same() -> None:
    view = SwarmView((announced("A", "0-8", latency_s=0.12), announced("B", "0-8", latency_s=0.1)))
    assert shape(choose_chain(view, needs(held=Held(frozenset({peer("A")}), 640, 64.0)))) == "A 0-8"
    assert shape(choose_chain(view, needs(held=Held(frozenset({peer("A")}), 640, 6.4)))) == "B 0-8"


def test_missing_layers_are_named() -> None:
    view = SwarmView((announced("A", "0-2"), announced("C", "6-7")))
    with pytest.raises(NoChain, match=r"no live peer serves layers 3-5, 8-8 of tiny") as caught:
        choose_chain(view, NEEDS)
    assert caught.value.missing == (LayerRange(3, 6), LayerRange(8, 9))


def test_another_revision_under_the_same_name_is_not_used() -> None:
    other = dataclasses.replace(announced("A", "0-8"), fingerprint="b" * 64)
    with pytest.raises(NoChain):
        choose_chain(SwarmView((other,)), NEEDS)


@pytest.mark.parametrize("other", ["bfloat16", "float32+int8", "float32+wire-int8"])
def test_a_chain_stays_within_one_numerics_class(other: str) -> None:
    view = SwarmView((announced("A", "0-4"), announced("B", "5-8", numerics=other)))
    with pytest.raises(NoChain, match="cannot be chained"):
        choose_chain(view, NEEDS)


def test_a_prompt_beyond_every_peers_room_is_the_callers_error() -> None:
    with pytest.raises(PromptTooLong, match="100 tokens asked for"):
        choose_chain(SwarmView((announced("A", "0-8", room=99),)), NEEDS)


def test_peers_to_avoid_are_not_used_and_slow_ones_only_at_last() -> None:
    view = SwarmView((announced("A", "0-8"), announced("B", "0-8", latency_s=0.5)))
    assert shape(choose_chain(view, without(peers=frozenset({peer("A")})))) == "B 0-8"
    assert shape(choose_chain(view, without(slow=frozenset({peer("A")})))) == "B 0-8"
    both = without(slow=frozenset({peer("A"), peer("B")}))
    assert shape(choose_chain(view, both)) == "A 0-8"


def test_two_peers_that_cannot_reach_each_other_are_not_neighbours() -> None:
    view = SwarmView((announced("A", "0-3"), announced("B", "4-8"), announced("C", "4-8")))
    broken = without(links=frozenset({(peer("A"), peer("B"))}))
    assert shape(choose_chain(view, broken)) == "A 0-3, C 4-8"


def test_mending_keeps_the_survivors() -> None:
    view = SwarmView(
        (announced("A", "0-2"), announced("B", "3-5"), announced("C", "6-8"), announced("E", "0-8"))
    )
    chain = choose_chain(view, without(peers=frozenset({peer("E")})))
    mended = mend_chain(view, without(peers=frozenset({peer("B")})), chain, frozenset({1}))
    assert shape(mended) == "A 0-2, E 3-5, C 6-8"
    assert mended.hops[0] == chain.hops[0]


def test_one_peer_may_take_two_gaps_that_are_no_neighbours() -> None:
    view = SwarmView(
        (announced("A", "0-2"), announced("B", "3-5"), announced("C", "6-8"), announced("E", "0-8"))
    )
    chain = choose_chain(view, without(peers=frozenset({peer("E")})))
    gone = without(peers=frozenset({peer("A"), peer("C")}))
    assert shape(mend_chain(view, gone, chain, frozenset({0, 2}))) == "E 0-2, B 3-5, E 6-8"


def test_a_gap_that_only_a_neighbour_could_fill_gives_a_new_chain() -> None:
    view = SwarmView((announced("A", "0-5"), announced("B", "3-8", latency_s=0.001)))
    chain = choose_chain(view, NEEDS)
    wide = SwarmView((announced("A", "0-8"), announced("B", "3-8")))
    gone = without(peers=frozenset({peer("B")}))
    assert shape(mend_chain(wide, gone, chain, frozenset({1}))) == "A 0-8"


def test_nobody_left_for_a_gap_is_no_chain() -> None:
    view = SwarmView((announced("A", "0-4"), announced("B", "5-8")))
    chain = choose_chain(view, NEEDS)
    gone = without(peers=frozenset({peer("B")}))
    with pytest.raises(NoChain, match=r"layers 5-8 of tiny; 1 peer was tried"):
        mend_chain(view, gone, chain, frozenset({1}))


def test_the_ends_must_be_offered_unless_the_client_keeps_them() -> None:
    headless = dataclasses.replace(announced("A", "0-8"), offers_head=False)
    with pytest.raises(NoChain):
        choose_chain(SwarmView((headless,)), NEEDS)
    local = needs(local_head=True)
    assert shape(choose_chain(SwarmView((headless,)), local)) == "A 0-8"
