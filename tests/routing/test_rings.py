"""Chains whose last hop hands tokens to the first one: near each other rather than near us."""

from __future__ import annotations

import pytest

from p2pnode.errors import NoChain
from p2pnode.routing.chain import choose_chain, choose_standby, mend_chain, predicted
from p2pnode.routing.needs import Avoid, Needs
from p2pnode.routing.rings import MAX_LASTS
from p2pnode.routing.table import ANSWER_TOKENS
from p2pnode.types import Announcement, Coordinate, SwarmView
from tests.support.peers import announced, at, choose, needs, peer, shape, view

HERE = at(0.0)
NEAR, FAR = 0.01, 0.2


def swarm_of(**peers: tuple[str, float]) -> SwarmView:
    """Peers by name: their layers, and where they are on a line."""
    known: list[Announcement] = [announced(name, layers) for name, (layers, _) in peers.items()]
    return view(*known, **{name: {"coordinate": at(x_s)} for name, (_, x_s) in peers.items()})


def asked(*, has_ring: bool = True, here: Coordinate = HERE, **changes: object) -> Needs:
    return needs(coordinate=here, has_ring=has_ring, **changes)


SPLIT = swarm_of(A=("0-4", NEAR), B=("0-4", FAR + NEAR), C=("5-8", FAR))


def test_a_far_cluster_beats_a_chain_that_begins_beside_us() -> None:
    assert shape(choose_chain(SPLIT, asked(has_ring=False))) == "A 0-4, C 5-8"
    assert shape(choose_chain(SPLIT, asked())) == "B 0-4, C 5-8"


def test_of_clusters_alike_the_one_near_us_is_taken() -> None:
    both = swarm_of(A=("0-4", NEAR), B=("5-8", NEAR), C=("0-4", FAR), E=("5-8", FAR))
    assert shape(choose_chain(both, asked())) == "A 0-4, B 5-8"
    assert shape(choose_chain(both, asked(here=at(FAR)))) == "C 0-4, E 5-8"


def test_a_token_takes_its_way_round_and_ours_counts_once() -> None:
    choice = choose(swarm_of(A=("0-4", NEAR), C=("5-8", FAR)), asked())
    first, last = choice.terms
    assert first.way_s == last.way_s == pytest.approx((FAR - NEAR) / 2)
    assert choice.return_s == 0.0
    assert choice.time_s == pytest.approx(FAR - NEAR + 2 * 0.01)
    assert first.risk_s == pytest.approx((NEAR + FAR) / 2 / ANSWER_TOKENS)
    assert choice.total_s == pytest.approx(choice.time_s + first.risk_s)


def test_one_hop_alone_has_no_way_at_all() -> None:
    alone = swarm_of(A=("0-8", FAR))
    assert choose(alone, asked()).time_s == pytest.approx(0.01)
    assert choose(alone, asked(max_token_s=0.02)).chain.hops[0].peer == peer("A")
    with pytest.raises(NoChain):
        choose_chain(alone, asked(has_ring=False, max_token_s=0.02))


def test_where_the_last_hop_cannot_reach_the_first_tokens_come_by_way_of_us() -> None:
    blocked = Avoid(links=frozenset({(peer("C"), peer("B"))}))
    assert shape(choose_chain(SPLIT, asked(avoid=blocked))) == "A 0-4, C 5-8"
    chain = choose_chain(swarm_of(B=("0-4", FAR), C=("5-8", FAR)), asked(avoid=blocked))
    assert not any(hop.is_carried for hop in chain.hops)
    terms = predicted(SPLIT, asked(avoid=blocked), chain).terms
    assert terms[0].time_s == pytest.approx(FAR + NEAR / 2 + 0.01)


def test_what_the_way_round_was_measured_to_take_corrects_it() -> None:
    late = asked(measured_s={(peer("C"), peer("B")): 0.3, (peer("B"), peer("C")): 0.0})
    assert shape(choose_chain(SPLIT, late)) == "A 0-4, C 5-8"


def test_peers_that_only_promise_to_be_the_last_hop_are_in_nobodys_way() -> None:
    good = (announced("A", "0-4"), announced("B", "5-8"))
    names = [f"H{letter}" for letter in "ABCDEFGHJKLMNPQ"[: max(MAX_LASTS) + 2]]
    stuck = [announced(n, "0-8", latency_s=1e-6, offers_embedding=False) for n in names]
    assert shape(choose_chain(view(*good, *stuck), asked())).startswith("A 0-4, H")
    alone = announced("A", "0-8")
    assert shape(choose_chain(view(alone, *stuck), asked())) == "A 0-8"


@pytest.mark.parametrize("lost", [0, 2])
def test_an_end_that_is_lost_is_replaced_near_the_other_end(lost: int) -> None:
    chain = choose_chain(
        swarm_of(A=("0-2", FAR), B=("3-5", FAR / 2), C=("6-8", FAR)), asked(here=at(FAR))
    )
    left = {"B": ("3-5", FAR / 2)} | ({"C": ("6-8", FAR)} if lost == 0 else {"A": ("0-2", FAR)})
    spares = {"E": ("0-2", FAR), "F": ("6-8", FAR), "G": ("0-2", 0.0), "H": ("6-8", 0.0)}
    swarm = swarm_of(**left, **spares)
    for has_ring, chosen in ((True, "EF"), (False, "GH")):
        wanted = peer(chosen[lost == 2])
        mended = mend_chain(swarm, asked(has_ring=has_ring), chain, frozenset({lost}))
        assert mended.hops[lost].peer == wanted
        standby = choose_standby(swarm, asked(has_ring=has_ring), chain, lost)
        assert standby is not None
        assert standby.peer == wanted
