"""Sixteen clients at the same peers, simulated: how evenly routing spreads them.

Gossip tells each client of the sessions of a second or two ago; nobody coordinates them.
"""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass, field, replace

from p2pnode.lab.regions import World, make_world
from p2pnode.routing.chain import choose_chain
from p2pnode.types import LayerRange

NUM_CLIENTS = 16
NUM_PEERS = 12
LAG_S = (1.0, 2.0)
"""How old what a client knows of the peers is."""
SESSION_S = (10.0, 30.0)
"""How long a session takes; each client then begins another one at once."""
ARRIVAL_S = 8.0
"""Within that all clients have begun their first session."""
LASTS_S = 180.0


@dataclass(slots=True)
class _Crowd:
    world: World
    rng: random.Random
    sessions: list[tuple[int, float, float]] = field(default_factory=list)
    """(peer, from, until)"""

    def begin(self, client: int, now: float) -> float:
        """Choose by what is known now; returns when the session ends."""
        seen_at = now - self.rng.uniform(*LAG_S)
        view = self.world.view(self.num_sessions(seen_at))
        chain = choose_chain(view, self.world.needs(client), rng=self.rng)
        ends_at = now + self.rng.uniform(*SESSION_S)
        index = {a.peer: i for i, a in enumerate(self.world.peers)}
        self.sessions += [(index[hop.peer], now, ends_at) for hop in chain.hops]
        return ends_at

    def num_sessions(self, at: float) -> list[int]:
        """Of each peer at that moment."""
        counts = [0] * NUM_PEERS
        for peer, begins_at, ends_at in self.sessions:
            counts[peer] += begins_at <= at < ends_at
        return counts

    def busy_s(self) -> list[float]:
        """Of each peer, the seconds of all its sessions."""
        totals = [0.0] * NUM_PEERS
        for peer, begins_at, ends_at in self.sessions:
            totals[peer] += ends_at - begins_at
        return totals


def balance(seed: int = 0, *, worlds: int = 6) -> dict[str, float]:
    """How evenly 16 clients spread over 12 peers of one region, 4 for each third of a model.

    Busiest peer / mean; medians over several worlds (and the worst of them). ``ratio``: by the time
    of all sessions within three minutes, each client beginning another session when one has ended;
    ``ratio_start``: by the number of sessions when all have begun, within 8 s; ``ratio_burst``: the
    same when all begin at one moment, and none can know of another one.
    """
    found: dict[str, list[float]] = {"ratio": [], "ratio_start": [], "ratio_burst": []}
    for number in range(worlds):
        lasting = _crowd(random.Random(seed * 1000 + number), ARRIVAL_S, LASTS_S)
        starting = _crowd(random.Random(seed * 1000 + number), ARRIVAL_S, ARRIVAL_S)
        bursting = _crowd(random.Random(seed * 1000 + number), 0.0, 0.0)
        found["ratio"].append(_busiest(lasting.busy_s()))
        found["ratio_start"].append(_busiest(starting.num_sessions(ARRIVAL_S)))
        found["ratio_burst"].append(_busiest(bursting.num_sessions(0.0)))
    figures = {name: statistics.median(each) for name, each in found.items()}
    return figures | {f"{name}_worst": max(each) for name, each in found.items()}


def _crowd(rng: random.Random, arrival_s: float, lasts_s: float) -> _Crowd:
    """Sessions that begin until ``lasts_s``."""
    world = make_world(rng, per_region=NUM_PEERS, num_clients=NUM_CLIENTS, num_regions=1)
    thirds = tuple(LayerRange(9 * (i % 3), 9 * (i % 3) + 9) for i in range(NUM_PEERS))
    peers = tuple(
        replace(
            a,
            layers=layers,
            latency_s=0.009 * rng.uniform(0.95, 1.05),
            offers_embedding=layers.start == 0,
            offers_head=layers.stop == a.num_layers,
        )
        for a, layers in zip(world.peers, thirds, strict=True)
    )
    crowd = _Crowd(replace(world, peers=peers), rng)
    due = {client: rng.uniform(0.0, arrival_s) for client in world.clients}
    while min(due.values()) <= lasts_s:
        client = min(due, key=lambda each: due[each])
        due[client] = crowd.begin(client, due[client])
    return crowd


def _busiest(loads: list[int] | list[float]) -> float:
    return max(loads) / (sum(loads) / len(loads))
