"""What makes one chain cheaper than another: each term of the sum can decide."""

from __future__ import annotations

import math
import random

import pytest

from p2pnode.errors import NoChain, PromptTooLong
from p2pnode.routing.chain import choose_chain, predicted
from p2pnode.types import Coordinate, Liveness
from tests.support.peers import NEEDS, announced, at, choose, needs, peer, shape, view

HERE = at(0.0)


def test_measured_step_times_count_more_than_what_was_announced() -> None:
    claims = announced("A", "0-8", latency_s=0.001)
    honest = announced("B", "0-8", latency_s=0.01)
    slow = {"step_times": ((1, 0.04, 0.05),)}
    assert shape(choose_chain(view(claims, honest), NEEDS)) == "A 0-8"
    assert shape(choose_chain(view(claims, honest, A=slow), NEEDS)) == "B 0-8"


def test_compute_time_is_that_of_the_layers_used() -> None:
    swarm = view(announced("A", "0-5", latency_s=0.06), announced("B", "3-8", latency_s=0.006))
    choice = choose(swarm, NEEDS)
    assert shape(choice.chain) == "A 0-2, B 3-8"
    assert [terms.compute_s for terms in choice.terms] == pytest.approx([0.03, 0.006])


def test_a_queue_is_avoided_and_so_are_sessions_that_will_make_one() -> None:
    peers = (announced("A", "0-8"), announced("B", "0-8", latency_s=0.011))
    assert shape(choose_chain(view(*peers), NEEDS)) == "A 0-8"
    assert shape(choose_chain(view(*peers, A={"queue_s": 0.01}), NEEDS)) == "B 0-8"
    assert shape(choose_chain(view(*peers, A={"num_sessions": 1}), NEEDS)) == "B 0-8"
    begun = needs(unseen_sessions={peer("A"): 1})
    assert shape(choose_chain(view(*peers), begun)) == "B 0-8"


def test_near_peers_form_a_cluster() -> None:
    """Each of the far peers is faster, and two of them together still win; never a mixture."""
    near = [announced("A", "0-4"), announced("B", "5-8")]
    far = [announced("C", "0-4", latency_s=0.001), announced("E", "5-8", latency_s=0.001)]
    places = {"A": at(0.0), "B": at(0.01), "C": at(0.2), "E": at(0.21)}
    swarm = view(*near, *far, **{name: {"coordinate": place} for name, place in places.items()})
    assert shape(choose_chain(swarm, needs(coordinate=HERE))) == "A 0-4, B 5-8"
    assert shape(choose_chain(swarm, needs(coordinate=at(0.2)))) == "C 0-4, E 5-8"


def test_the_way_between_hops_counts_not_only_the_way_from_the_client() -> None:
    """B and C are as far from us, on two sides; A is beside C."""
    peers = (announced("A", "0-4"), announced("B", "5-8"), announced("C", "5-8"))
    places = {"A": at(0.1), "B": at(-0.1), "C": at(0.1)}
    swarm = view(*peers, **{name: {"coordinate": place} for name, place in places.items()})
    assert shape(choose_chain(swarm, needs(coordinate=HERE))) == "A 0-4, C 5-8"


def test_coordinates_that_nobody_is_sure_of_do_not_count() -> None:
    peers = (announced("A", "0-8"), announced("B", "0-8", latency_s=0.011))
    for error, chosen in ((0.1, "B 0-8"), (1.0, "A 0-8")):
        swarm = view(
            *peers,
            A={"coordinate": at(0.5, error=error)},
            B={"coordinate": at(0.0, error=error)},
        )
        assert shape(choose_chain(swarm, needs(coordinate=HERE))) == chosen


def test_two_peers_beside_us_are_beside_each_other_whatever_their_coordinates_say() -> None:
    """Half a second apart, they say; but both answer us within 2 ms."""
    split = (announced("A", "0-4", latency_s=0.002), announced("B", "5-8", latency_s=0.002))
    whole = announced("C", "0-8", latency_s=0.02)
    swarm = view(*split, whole, A={"coordinate": at(0.25)}, B={"coordinate": at(-0.25)})
    assert shape(choose_chain(swarm, needs(coordinate=HERE))) == "C 0-8"
    rtts_s = {peer("A"): 0.002, peer("B"): 0.002, peer("C"): 0.002}
    assert shape(choose_chain(swarm, needs(coordinate=HERE, rtts_s=rtts_s))) == "A 0-4, B 5-8"


def test_bytes_on_a_thin_uplink_count_for_the_hop_that_sends_them() -> None:
    thin = announced("A", "0-4", up_bytes_per_s=1e5)
    wide = announced("B", "0-4", up_bytes_per_s=1e8, latency_s=0.02)
    swarm = view(thin, wide, announced("C", "5-8", up_bytes_per_s=1e5))
    assert shape(choose_chain(swarm, NEEDS)) == "A 0-4, C 5-8"
    choice = choose(swarm, needs(hidden_size=1024))
    assert shape(choice.chain) == "B 0-4, C 5-8"
    assert choice.terms[1].transfer_s == pytest.approx(4096 / 1e8)
    assert choice.return_s == pytest.approx(0.015), "a token id comes back, no hidden state"


def test_steps_that_took_longer_than_predicted_correct_the_prediction() -> None:
    swarm = view(announced("A", "0-8"), announced("B", "0-8", latency_s=0.02))
    late = needs(measured_s={(None, peer("A")): 0.05})
    assert shape(choose_chain(swarm, late)) == "B 0-8"


def test_what_all_ways_to_a_peer_have_in_common_is_the_peers_fault() -> None:
    first = [announced("A", "0-4"), announced("B", "0-4"), announced("C", "0-4")]
    swarm = view(*first, announced("E", "5-8"), announced("F", "5-8", latency_s=0.02))
    slow = needs(measured_s={(peer("A"), peer("E")): 0.05, (peer("B"), peer("E")): 0.04})
    assert shape(choose_chain(swarm, slow)) == "A 0-4, F 5-8"
    one_way = needs(measured_s={(peer("A"), peer("E")): 0.05, (peer("B"), peer("E")): 0.0})
    assert shape(choose_chain(swarm, one_way)) == "B 0-4, E 5-8"


@pytest.mark.parametrize(
    "trouble",
    [
        {"liveness": Liveness.SUSPECT},
        {"is_draining": True},
        {"errors": (("out-of-memory", 2),)},
    ],
)
def test_a_peer_in_trouble_is_used_when_nobody_else_is_there(trouble: dict[str, object]) -> None:
    good, slower = announced("A", "0-8"), announced("B", "0-8", latency_s=0.015)
    assert shape(choose_chain(view(good, slower, A=trouble), NEEDS)) == "B 0-8"
    assert shape(choose_chain(view(good, A=trouble), NEEDS)) == "A 0-8"


def test_a_dead_peer_is_not_used_at_all() -> None:
    swarm = view(announced("A", "0-8"), A={"liveness": Liveness.DEAD})
    with pytest.raises(NoChain, match="no live peer serves layers 0-8"):
        choose_chain(swarm, NEEDS)


def test_a_full_peer_is_not_used_and_the_caller_may_ask_again() -> None:
    full = {"kv_free_tokens": 99}
    swarm = view(announced("A", "0-8"), announced("B", "0-8", latency_s=1.0), A=full)
    assert shape(choose_chain(swarm, NEEDS)) == "B 0-8"
    with pytest.raises(NoChain, match="no peer has room for 100 tokens now in layers 0-8"):
        choose_chain(view(announced("A", "0-8"), A=full), NEEDS)
    with pytest.raises(PromptTooLong):
        choose_chain(view(announced("A", "0-8", room=99), A=full), NEEDS)


def test_of_whom_only_liveness_is_known_is_not_taken_for_full() -> None:
    suspect = {"kv_free_tokens": None, "liveness": Liveness.SUSPECT}
    assert shape(choose_chain(view(announced("A", "0-8"), A=suspect), NEEDS)) == "A 0-8"


def test_reputation_is_a_cost() -> None:
    swarm = view(announced("A", "0-8"), announced("B", "0-8", latency_s=0.02))
    assert shape(choose_chain(swarm, needs(risk_s={peer("A"): 0.05}))) == "B 0-8"


def test_like_peers_share_the_sessions_and_worse_ones_get_none() -> None:
    like = [announced(name, "0-8") for name in "ABCEFG"]
    swarm = view(*like, announced("H", "0-8", latency_s=0.02))
    rng = random.Random(1)
    chosen = [shape(choose_chain(swarm, NEEDS, rng=rng))[0] for _ in range(120)]
    assert set(chosen) == set("ABCEFG")
    assert max(map(chosen.count, "ABCEFG")) < 40


def test_a_limit_that_holds_changes_nothing() -> None:
    swarm = view(announced("A", "0-8"))
    assert shape(choose_chain(swarm, needs(max_token_s=0.05, min_tokens_per_s=20.0))) == "A 0-8"


def test_a_limit_prefers_the_fast_chain_to_the_reputable_one() -> None:
    swarm = view(announced("A", "0-8"), announced("B", "0-8", latency_s=0.03))
    risky = {"risk_s": {peer("A"): 0.05}}
    assert shape(choose_chain(swarm, needs(**risky))) == "B 0-8"
    assert shape(choose_chain(swarm, needs(max_token_s=0.045, **risky))) == "A 0-8"


@pytest.mark.parametrize("limit", [{"max_token_s": 0.05}, {"min_tokens_per_s": 20.0}])
def test_a_limit_that_cannot_be_kept_names_the_hop_and_by_how_much(limit: dict[str, float]) -> None:
    swarm = view(announced("A", "0-2"), announced("B", "3-8", latency_s=0.08))
    what = r"would take 135 ms per token, 85 ms more than the 50 ms asked for; most of it at "
    with pytest.raises(NoChain, match=what + rf"peer {peer('B').short}, layers 3-8: 95 ms"):
        choose_chain(swarm, needs(**limit))


def test_the_prediction_of_a_chain_is_the_sum_that_chose_it() -> None:
    swarm = view(
        announced("A", "0-4"),
        announced("B", "5-8", up_bytes_per_s=1e6),
        A={"coordinate": at(0.1), "queue_s": 0.003},
        B={"coordinate": at(0.2)},
    )
    asked = needs(coordinate=HERE, hidden_size=64)
    choice = choose(swarm, asked)
    again = predicted(swarm, asked, choice.chain)
    assert again.total_s == pytest.approx(choice.total_s)
    assert again.terms[0].queue_s == 0.003


@pytest.mark.parametrize(
    "lie",
    [
        {"step_times": ((1, math.nan, math.nan),)},
        {"step_times": ((1, -5.0, -5.0),)},
        {"queue_s": math.nan},
    ],
)
def test_times_that_cannot_be_make_a_peer_the_last_resort(lie: dict[str, object]) -> None:
    liar, honest = announced("A", "0-8", latency_s=0.001), announced("B", "0-8")
    assert shape(choose_chain(view(liar, honest, A=lie), NEEDS)) == "B 0-8"


@pytest.mark.parametrize(
    "place",
    [
        Coordinate((math.nan, 0.0, 0.0), 0.0, 0.1),
        Coordinate((0.0, 0.0, 0.0), -1.0, 0.1),
        Coordinate((0.0, 0.0, 0.0), 0.0, math.nan),
        Coordinate((math.inf, 0.0, 0.0), 0.0, 0.1),
    ],
)
def test_a_place_that_cannot_be_is_an_unknown_one(place: Coordinate) -> None:
    liar = announced("A", "0-8")
    choice = choose(view(liar, A={"coordinate": place}), needs(coordinate=HERE))
    assert choice.terms[0].way_s == pytest.approx(0.015)
