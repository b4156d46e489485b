"""Coordinates: they predict what was not measured, and liars cannot throw them about."""

from __future__ import annotations

import math
import random
from statistics import median

import pytest

from p2pnode.gossip.vivaldi import MAX_MOVE_S, MAX_RTT_S, Vivaldi
from p2pnode.net.memory import fake_peer_id
from p2pnode.types import Coordinate

NUM_PEERS = 60
REGIONS = ((0.0, 0.0), (0.08, 0.0), (0.03, 0.11))


class World:
    """Peers in three regions, each with an access line of its own."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.places = []
        for number in range(NUM_PEERS):
            x, y = REGIONS[number % 3]
            near = (self.rng.gauss(x, 0.006), self.rng.gauss(y, 0.006))
            self.places.append((near, self.rng.uniform(0.001, 0.012)))
        self.peers = [Vivaldi(random.Random(f"{seed}/{n}")) for n in range(NUM_PEERS)]
        self.liars: set[int] = set()

    def rtt_s(self, a: int, b: int) -> float:
        (here, up_a), (there, up_b) = self.places[a], self.places[b]
        return math.dist(here, there) + up_a + up_b

    def claim(self, number: int) -> Coordinate:
        if number not in self.liars:
            return self.peers[number].coordinate
        x, y, z = (self.rng.uniform(-10, 10) for _ in range(3))
        return Coordinate((x, y, z), 0.0, 0.0)

    def run(self, rounds: int, jitter: float = 0.0) -> None:
        for _ in range(rounds):
            for number, peer in enumerate(self.peers):
                other = self.rng.choice([n for n in range(NUM_PEERS) if n != number])
                rtt_s = self.rtt_s(number, other) * (1 + jitter * self.rng.uniform(-1, 1))
                peer.measured(fake_peer_id(other), rtt_s)
                peer.met(fake_peer_id(other), self.claim(other))

    def error(self) -> float:
        """Median relative error of the predictions between honest peers."""
        honest = [number for number in range(NUM_PEERS) if number not in self.liars]
        return median(
            abs(self.peers[a].coordinate.rtt_s(self.peers[b].coordinate) / self.rtt_s(a, b) - 1)
            for a in honest
            for b in honest
            if a < b
        )


@pytest.mark.parametrize("seed", range(3))
def test_in_three_regions_predictions_are_good_after_two_minutes(seed: int) -> None:
    world = World(seed)
    world.run(120)
    assert world.error() < 0.15


def test_jitter_of_half_the_round_trip_does_not_spoil_them() -> None:
    world = World(1)
    world.run(120, jitter=0.5)
    assert world.error() < 0.15


def test_one_liar_in_ten_does_not_spoil_them() -> None:
    world = World(2)
    world.liars = set(range(6))
    world.run(200)
    assert world.error() < 0.15


def test_who_knows_its_place_is_not_thrown_out_of_it_by_new_liars() -> None:
    world = World(3)
    world.run(120)
    world.liars = set(range(6))
    world.run(60)
    assert world.error() < 0.15


def test_one_lie_moves_us_a_little_at_most() -> None:
    ours = Vivaldi(random.Random(1))
    for number in range(50):
        before = ours.coordinate.place
        ours.measured(fake_peer_id(number), MAX_RTT_S)
        ours.met(fake_peer_id(number), Coordinate((10.0, 10.0, 10.0), 0.0, 0.0))
        assert math.dist(before, ours.coordinate.place) <= MAX_MOVE_S + 1e-9


@pytest.mark.parametrize("rtt_s", [0.0, -1.0, math.nan, math.inf, 11.0])
def test_a_round_trip_that_cannot_be_is_ignored(rtt_s: float) -> None:
    ours = Vivaldi(random.Random(1))
    ours.measured(fake_peer_id(1), rtt_s)
    ours.met(fake_peer_id(1), Coordinate())
    assert ours.rtt_s(fake_peer_id(1)) is None
    assert ours.coordinate == Vivaldi(random.Random(1)).coordinate


def test_a_peer_that_tells_its_place_often_counts_once_for_each_measurement() -> None:
    ours = Vivaldi(random.Random(1))
    ours.measured(fake_peer_id(1), 0.1)
    ours.met(fake_peer_id(1), Coordinate())
    moved = ours.coordinate
    for _ in range(10):
        ours.met(fake_peer_id(1), Coordinate((1.0, 0.0, 0.0)))
    assert ours.coordinate == moved


def test_the_round_trip_to_a_peer_is_the_median_of_the_last() -> None:
    ours = Vivaldi(random.Random(1))
    for rtt_s in (0.9, 0.1, 0.3, 0.2, 5.0, 0.25):
        ours.measured(fake_peer_id(1), rtt_s)
    assert ours.rtt_s(fake_peer_id(1)) == 0.25
