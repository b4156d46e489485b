"""Why a chain was chosen."""

from __future__ import annotations

import random

import pytest

from p2pnode.errors import NoChain
from p2pnode.routing.chain import choose_chain
from p2pnode.routing.explain import explain
from tests.support.peers import NEEDS, announced, needs, shape, view

SWARM = view(
    announced("A", "0-8"),
    announced("B", "0-4", latency_s=0.005),
    announced("C", "5-8", latency_s=0.005),
    announced("E", "0-8", latency_s=0.03),
)


def test_the_choice_comes_with_its_terms_and_the_runners_up_in_order() -> None:
    explanation = explain(SWARM, NEEDS)
    assert shape(explanation.chosen.chain) == "A 0-8"
    assert shape(explanation.others[0].chain) == "B 0-4, C 5-8"
    totals = [choice.total_s for choice in (explanation.chosen, *explanation.others)]
    assert totals == sorted(totals)
    assert explanation.num_peers == 4
    (terms,) = explanation.chosen.terms
    assert (terms.compute_s, terms.way_s) == (0.01, 0.015)
    assert explanation.chosen.total_s == pytest.approx(0.04)


def test_it_explains_the_draw_that_was_made() -> None:
    like = view(*(announced(name, "0-8") for name in "ABCEFGHJK"))
    for seed in range(5):
        chain = choose_chain(like, NEEDS, rng=random.Random(seed))
        explanation = explain(like, NEEDS, rng=random.Random(seed))
        assert explanation.chosen.chain == chain
        assert explanation.others[0].total_s >= explanation.chosen.total_s


def test_where_there_is_no_choice_there_is_no_runner_up() -> None:
    assert explain(view(announced("A", "0-8")), NEEDS).others == ()
    with pytest.raises(NoChain):
        explain(view(), NEEDS)


def test_it_says_what_limit_was_asked_for() -> None:
    assert explain(SWARM, needs(max_token_s=0.5, min_tokens_per_s=10.0)).limit_s == 0.1
