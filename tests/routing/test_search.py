"""The search: as good as trying everything, and quick among a thousand peers."""

from __future__ import annotations

import itertools
import random
import statistics
import time

import pytest

from p2pnode.routing.chain import predicted, tables_of
from p2pnode.routing.needs import Needs
from p2pnode.routing.search import Gap, cheapest
from p2pnode.types import Chain, Coordinate, Hop, LayerRange, SwarmView
from tests.support.peers import FINGERPRINT, NUM_LAYERS, announced, choose, needs, peer, view

NAMES = "ABCEFGHJKLMNPQRSTUVWXYZ"


def random_swarm(rng: random.Random, num_peers: int, num_layers: int) -> SwarmView:
    """Peers with any ranges, somewhere on three continents."""
    peers, health = [], {}
    for number in range(num_peers):
        name = f"{NAMES[number // 23 // 23]}{NAMES[number // 23 % 23]}{NAMES[number % 23]}"
        length = rng.randint(max(1, num_layers // 9), max(2, num_layers // 2))
        start = rng.randint(0, num_layers - length)
        layers = LayerRange(start, start + length)
        peers.append(
            announced(
                name,
                str(layers),
                latency_s=0.002 * length * rng.uniform(0.5, 2.0),
                num_layers=num_layers,
                up_bytes_per_s=rng.choice([0.0, 2.5e6]),
                offers_embedding=layers.start == 0,
                offers_head=layers.stop == num_layers,
            )
        )
        place = rng.choice([(0.0, 0.0, 0.0), (0.08, 0.02, 0.0), (0.03, 0.15, 0.02)])
        near = tuple(part + rng.gauss(0.0, 0.01) for part in place)
        coordinate = Coordinate((near[0], near[1], near[2]), rng.uniform(0.001, 0.01), 0.1)
        health[name] = {"coordinate": coordinate, "num_sessions": rng.randrange(3)}
    return view(*peers, **health)


def every_chain(swarm: SwarmView, most_hops: int) -> list[Chain]:
    """All chains of up to so many hops over all layers, by trying."""
    found = []
    edges = sorted({e for a in swarm.announcements for e in (a.layers.start, a.layers.stop)})
    for num_hops in range(1, most_hops + 1):
        for inner in itertools.combinations(edges[1:-1], num_hops - 1):
            cuts = [LayerRange(*cut) for cut in itertools.pairwise((0, *inner, NUM_LAYERS))]
            who = [[a for a in swarm.announcements if a.layers.covers(cut)] for cut in cuts]
            for peers in itertools.product(*who):
                if any(a is b for a, b in itertools.pairwise(peers)):
                    continue
                hops = tuple(Hop(a.peer, cut) for a, cut in zip(peers, cuts, strict=True))
                found.append(Chain(hops, "float32"))
    return found


def cost_s(swarm: SwarmView, asked: Needs, *, first_per_layer: int) -> float:
    """Of the cheapest way, when so many peers give the first bound."""
    (table,) = tables_of(swarm, asked, "float32", None).values()
    gap = Gap(LayerRange(0, asked.num_layers))
    way = cheapest(
        table,
        gap,
        num_layers=asked.num_layers,
        neighbours=table,
        first_per_layer=first_per_layer,
    )
    assert way is not None
    return way.cost_s


@pytest.mark.parametrize("has_ring", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_no_chain_is_cheaper_than_the_chosen_one(seed: int, *, has_ring: bool) -> None:
    rng = random.Random(seed)
    swarm = random_swarm(rng, 7, NUM_LAYERS)
    ends = [announced("A", "0-3"), announced("B", "4-8", latency_s=0.03)]
    swarm = SwarmView((*swarm.announcements, *ends), swarm.health)
    pairs = [(a.peer, b.peer) for a, b in itertools.permutations(swarm.announcements, 2)]
    corrected = {pair: rng.uniform(0.0, 0.05) for pair in rng.sample(pairs, 5)}
    asked = needs(
        hidden_size=1000,
        coordinate=Coordinate(error=0.1),
        measured_s=corrected,
        has_ring=has_ring,
    )
    choice = choose(swarm, asked)
    costs = [predicted(swarm, asked, chain).total_s for chain in every_chain(swarm, 3)]
    assert choice.total_s <= min(costs) + 1e-9
    if not has_ring:
        assert cost_s(swarm, asked, first_per_layer=1) == pytest.approx(choice.total_s)
    assert choice.total_s == pytest.approx(predicted(swarm, asked, choice.chain).total_s)


def test_neighbours_are_two_peers_even_where_one_peer_serves_both_ends() -> None:
    ends = announced("A", "0-8", latency_s=0.001, offers_head=False)
    choice = choose(view(ends, announced("B", "6-8", latency_s=1.0)), needs())
    assert [hop.peer for hop in choice.chain.hops] == [peer("A"), peer("B")]


@pytest.mark.parametrize("has_ring", [False, True])
@pytest.mark.parametrize("num_layers", [27, 80])
def test_a_thousand_peers_are_routed_in_milliseconds(num_layers: int, *, has_ring: bool) -> None:
    """25 ms of CPU are the goal (measured: 6 to 25, rings 16 to 35); the limit here allows for a
    busy machine."""
    swarm = random_swarm(random.Random(1), 1000, num_layers)
    asked = Needs(
        model="large",
        fingerprint=FINGERPRINT,
        num_layers=num_layers,
        num_tokens=100,
        hidden_size=4096,
        coordinate=Coordinate(error=0.1),
        has_ring=has_ring,
    )
    times = []
    for number in range(5):
        began = time.process_time()
        choose(swarm, asked, random.Random(number))
        times.append(time.process_time() - began)
    assert statistics.median(times) < 0.1


def test_the_bound_leaves_out_nobody_who_matters() -> None:
    swarm = random_swarm(random.Random(2), 400, 27)
    asked = needs(coordinate=Coordinate(error=0.1), num_layers=27)
    quick, full = (cost_s(swarm, asked, first_per_layer=most) for most in (16, 10_000))
    assert quick == pytest.approx(full)
