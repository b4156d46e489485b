"""Routing over simulated continents, and among a crowd of clients."""

from __future__ import annotations

import itertools
import random

import pytest

from p2pnode.lab.crowd import balance
from p2pnode.lab.regions import best_loop_s, best_ring_s, cluster, make_world
from p2pnode.routing.chain import choose_chain
from p2pnode.types import Chain, Hop


def test_the_chosen_chain_is_nearly_the_best_there_is() -> None:
    figures = cluster(worlds=6)
    assert 1.0 <= figures["ratio"] <= 1.1
    assert figures["ratio_measured"] <= 1.1
    assert 1.0 <= figures["ratio_ring"] <= 1.1
    assert figures["error_median"] < 0.25


def test_many_clients_share_the_peers() -> None:
    figures = balance(worlds=2)
    assert figures["ratio"] <= 1.5
    assert figures["ratio_burst"] >= figures["ratio"], "what nobody can know, nobody can avoid"


def test_the_best_loop_is_the_best_of_all_chains_of_three_thirds() -> None:
    world = make_world(random.Random(3), per_region=6, num_clients=1)
    (client,) = world.clients
    thirds = [[a for a in world.peers if a.layers.start == start] for start in (0, 9, 18)]
    loops, rings = [], []
    for peers in itertools.product(*thirds):
        hops = tuple(Hop(a.peer, a.layers) for a in peers if len(a.layers) == 9)
        if len(hops) == 3:
            loops.append(world.loop_s(Chain(hops, "float32"), client))
            rings.append(world.ring_s(Chain(hops, "float32")))
    assert best_loop_s(world, client) == pytest.approx(min(loops))
    assert best_ring_s(world) == pytest.approx(min(rings))


def test_a_chain_stays_on_one_continent_where_it_can() -> None:
    world = make_world(random.Random(4), per_region=12, num_clients=3)
    for region, client in enumerate(world.clients):
        chain = choose_chain(world.view(), world.needs(client))
        index = {a.peer: i for i, a in enumerate(world.peers)}
        assert {index[hop.peer] % 3 for hop in chain.hops} == {region}
