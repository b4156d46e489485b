"""Routing over three continents, simulated: how near the chosen chain is to the best one.

Pure simulation of round trips; the coordinates (`gossip.vivaldi`) and the choice (`routing`) are
the real ones. Round trips are those of places and access lines, off by some 10 % per pair (routes
in the internet are no straight lines), and each measurement is off again.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from p2pnode.gossip.vivaldi import Vivaldi
from p2pnode.lab.peers import FINGERPRINT, NUM_LAYERS, announcement_of, part
from p2pnode.net.memory import fake_identity
from p2pnode.routing.chain import choose_chain, predicted
from p2pnode.routing.needs import Link, Needs
from p2pnode.types import (
    Announcement,
    Chain,
    Coordinate,
    Health,
    Hop,
    LayerRange,
    PeerHealth,
    PeerId,
    SwarmView,
)

CENTRES_S = ((0.0, 0.0), (0.085, 0.01), (0.12, 0.17))
"""Where the regions are, in seconds of round trip: 85 to 210 ms apart."""
REGION_S = 0.012
"""How far a participant is from the centre of its region, sigma."""
ACCESS_S = (0.001, 0.012)
"""Its access line."""
DETOUR = 0.1
"""How much a pair's round trip is off the straight line, sigma, relative."""
JITTER = 0.15
"""How much a measurement is longer than the true round trip at most, relative."""
ROUNDS = 60
PROBES = 3
"""Coordinates after a minute of gossip: so many rounds, with so many measurements each."""


@dataclass(frozen=True, slots=True)
class World:
    """Participants (peers first, then clients) and the true round trips between them."""

    peers: tuple[Announcement, ...]
    rtts_s: tuple[tuple[float, ...], ...]
    coordinates: tuple[Coordinate, ...]
    """As they have learnt them."""

    @property
    def clients(self) -> range:
        """The indexes of those who serve nothing."""
        return range(len(self.peers), len(self.rtts_s))

    def view(self, sessions: Sequence[int] | None = None) -> SwarmView:
        """What everybody sees, given how many sessions each peer tells of."""
        told = sessions or [0] * len(self.peers)
        health = {
            a.peer: PeerHealth(
                Health(
                    peer=a.peer,
                    sequence=1,
                    issued_at=0.0,
                    num_sessions=told[index],
                    kv_free_tokens=a.kv_capacity_tokens,
                    step_times=((1, a.latency_s, 1.2 * a.latency_s),),
                    coordinate=self.coordinates[index],
                )
            )
            for index, a in enumerate(self.peers)
        }
        return SwarmView(self.peers, health)

    def needs(self, client: int) -> Needs:
        """What a session of that client asks."""
        return Needs(
            model="lab",
            fingerprint=FINGERPRINT,
            num_layers=NUM_LAYERS,
            num_tokens=100,
            hidden_size=0,
            coordinate=self.coordinates[client],
        )

    def loop_s(self, chain: Chain, client: int) -> float:
        """The true time of a token."""
        index = {a.peer: i for i, a in enumerate(self.peers)}
        path = [client, *(index[hop.peer] for hop in chain.hops), client]
        ways_s = sum(self.rtts_s[a][b] / 2.0 for a, b in itertools.pairwise(path))
        return ways_s + sum(self.compute_s(hop) for hop in chain.hops)

    def ring_s(self, chain: Chain) -> float:
        """The true time of a token that is handed round."""
        index = {a.peer: i for i, a in enumerate(self.peers)}
        path = [index[hop.peer] for hop in (chain.hops[-1], *chain.hops)]
        ways_s = sum(self.rtts_s[a][b] / 2.0 for a, b in itertools.pairwise(path))
        return ways_s + sum(self.compute_s(hop) for hop in chain.hops)

    def compute_s(self, hop: Hop) -> float:
        """The true time of a hop's layers."""
        a = next(a for a in self.peers if a.peer == hop.peer)
        return a.latency_s * len(hop.layers) / len(a.layers)


def cluster(seed: int = 0, *, worlds: int = 20, per_region: int = 12) -> dict[str, float]:
    """How near the chosen chain's true loop is to the best possible one, over several worlds.

    Medians over all clients (and means, and the worst): ``ratio`` for a client that knows its own
    round trips to the peers, as after a minute in the swarm; ``ratio_fresh`` for one that knows
    coordinates only; ``ratio_measured`` for the choice after its first session, whose steps it has
    measured; ``ratio_ring`` where hops hand tokens round. ``error_median``, ``error_p95``: how far
    predicted round trips are off, relative.
    """
    names = ("ratio", "ratio_fresh", "ratio_measured", "ratio_ring")
    ratios: dict[str, list[float]] = {name: [] for name in names}
    errors = []
    for number in range(worlds):
        rng = random.Random(seed * 1000 + number)
        world = make_world(rng, per_region=per_region, num_clients=3)
        view, best_ring = world.view(), best_ring_s(world)
        for client in world.clients:
            best_s = best_loop_s(world, client)
            fresh = world.needs(client)
            knowing = replace(fresh, rtts_s=_measured_rtts(rng, world, client))
            first = choose_chain(view, knowing, rng=rng)
            after = replace(knowing, measured_s=_excesses(rng, world, client, knowing, first))
            chains = (first, choose_chain(view, fresh, rng=rng), choose_chain(view, after, rng=rng))
            for name, chain in zip(names, chains, strict=False):
                ratios[name].append(world.loop_s(chain, client) / best_s)
            ring = choose_chain(view, replace(knowing, has_ring=True), rng=rng)
            ratios["ratio_ring"].append(world.ring_s(ring) / best_ring)
        errors += prediction_errors(world)
    figures = {name: statistics.median(each) for name, each in ratios.items()}
    figures |= {f"{name}_mean": statistics.fmean(each) for name, each in ratios.items()}
    figures |= {f"{name}_worst": max(each) for name, each in ratios.items()}
    quantiles = statistics.quantiles(errors, n=20)
    return figures | {"error_median": statistics.median(errors), "error_p95": quantiles[-1]}


def make_world(
    rng: random.Random, *, per_region: int, num_clients: int, num_regions: int = 3
) -> World:
    """Peers of thirds (and some of halves) in each region; clients, one region after another."""
    num_peers = per_region * num_regions
    homes = [i % num_regions for i in range(num_peers)]
    homes += [i % num_regions for i in range(num_clients)]
    rtts_s = _true_rtts(rng, homes)
    peers = tuple(
        _announcement(fake_identity(i).peer, part(i // num_regions), rng.uniform(0.9, 1.6))
        for i in range(num_peers)
    )
    return World(peers, rtts_s, _learnt(rng, rtts_s))


def best_loop_s(world: World, client: int) -> float:
    """The loop of the best chain there is, by true round trips; the plain search over all."""
    return min(
        cost_s + world.rtts_s[last][client] / 2.0
        for (edge, last), cost_s in _reached(world, client)
        if edge == NUM_LAYERS
    )


def best_ring_s(world: World) -> float:
    """The same where the last hop hands tokens to the first one: whichever is the last."""
    lasts = [i for i, a in enumerate(world.peers) if a.layers.stop == NUM_LAYERS]
    return min(dict(_reached(world, last)).get((NUM_LAYERS, last), math.inf) for last in lasts)


def _reached(world: World, origin: int) -> list[tuple[tuple[int, int], float]]:
    """((layer, peer), seconds): how soon layers are run whose last is that peer's."""
    edges = sorted({edge for a in world.peers for edge in (a.layers.start, a.layers.stop)})
    reached: dict[tuple[int, int], float] = {(0, origin): 0.0}
    for start in edges[:-1]:
        here = [(last, cost_s) for (edge, last), cost_s in reached.items() if edge == start]
        for index, a in enumerate(world.peers):
            others = ((last, c) for last, c in here if last != index or start == 0)
            before = [c + world.rtts_s[last][index] / 2.0 for last, c in others]
            if not before or not a.layers.start <= start < a.layers.stop:
                continue
            for stop in (edge for edge in edges if start < edge <= a.layers.stop):
                cost_s = min(before) + a.latency_s * (stop - start) / len(a.layers)
                key = (stop, index)
                reached[key] = min(reached.get(key, math.inf), cost_s)
    return list(reached.items())


def prediction_errors(world: World) -> list[float]:
    """Of all pairs: how far the predicted round trip is off, relative to the true one."""
    places = world.coordinates
    return [
        abs(places[i].rtt_s(places[j]) - world.rtts_s[i][j]) / world.rtts_s[i][j]
        for i, j in itertools.combinations(range(len(places)), 2)
    ]


def _true_rtts(rng: random.Random, homes: Sequence[int]) -> tuple[tuple[float, ...], ...]:
    places = [tuple(rng.gauss(c, REGION_S) for c in CENTRES_S[home]) for home in homes]
    access_s = [rng.uniform(*ACCESS_S) for _ in homes]
    rtts_s = [[0.0] * len(homes) for _ in homes]
    for i, j in itertools.combinations(range(len(homes)), 2):
        line_s = math.dist(places[i], places[j]) * math.exp(rng.gauss(0.0, DETOUR))
        rtts_s[i][j] = rtts_s[j][i] = line_s + access_s[i] + access_s[j]
    return tuple(map(tuple, rtts_s))


def _learnt(rng: random.Random, rtts_s: Sequence[Sequence[float]]) -> tuple[Coordinate, ...]:
    """What Vivaldi makes of a minute of measurements."""
    names = [fake_identity(index).peer for index in range(len(rtts_s))]
    nodes = [Vivaldi(random.Random(rng.getrandbits(32))) for _ in rtts_s]
    for _ in range(ROUNDS):
        for index, node in enumerate(nodes):
            for other in rng.sample(range(len(nodes)), PROBES):
                if other != index:
                    measured_s = rtts_s[index][other] * (1.0 + rng.random() * JITTER)
                    node.measured(names[other], measured_s)
                    node.met(names[other], nodes[other].coordinate)
    return tuple(node.coordinate for node in nodes)


def _measured_rtts(rng: random.Random, world: World, client: int) -> dict[PeerId, float]:
    rtts_s = world.rtts_s[client]
    return {a.peer: rtts_s[i] * _jitter(rng) for i, a in enumerate(world.peers)}


def _jitter(rng: random.Random) -> float:
    """How much longer the median of a few measurements is than the true time."""
    return 1.0 + JITTER * rng.uniform(0.3, 0.7)


def _excesses(
    rng: random.Random, world: World, client: int, needs: Needs, chain: Chain
) -> dict[Link, float]:
    """By how much each step of a session took longer than predicted."""
    index = {a.peer: i for i, a in enumerate(world.peers)}
    found: dict[Link, float] = {}
    before: PeerId | None = None
    for hop, terms in zip(chain.hops, predicted(world.view(), needs, chain).terms, strict=True):
        sender = client if before is None else index[before]
        way_s = world.rtts_s[sender][index[hop.peer]] / 2.0 * _jitter(rng)
        found[before, hop.peer] = way_s + world.compute_s(hop) - terms.time_s
        before = hop.peer
    return found


def _announcement(peer: PeerId, layers: LayerRange, slowness: float) -> Announcement:
    """A peer that needs 1 ms per layer, times its slowness."""
    return announcement_of(peer, layers, issued_at=0.0, latency_s=0.001 * slowness * len(layers))
