"""The cheapest hops over a range of layers: dynamic programming over (boundary, last peer).

At each boundary between layers (only those where somebody's range begins or ends) a peer either
goes on, which costs its compute alone, or another one takes over, which costs the way between the
two and what a hop costs besides. With n peers and b boundaries that is b times an n x n minimum,
which numpy takes. In a large swarm the few most promising peers give a bound first; whoever cannot
be part of a cheaper chain, by the time of the layers and the way there and back alone, is left out
(branch and bound; Land and Doig, 1960).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from p2pnode.routing.table import ANSWER_TOKENS, UNKNOWN_RTT_S, Table
from p2pnode.routing.terms import Floats, Indexes
from p2pnode.types import LayerRange, PeerId

FIRST_PER_LAYER = 16
"""Peers that are compared for one layer at first: what they cost bounds what is worth a look."""
MAX_PEERS = 320
"""Peers that are compared at most, where that leaves enough for each layer."""
ROUNDING_S = 1e-9
CLIENT, GOES_ON = -1, -2


@dataclass(frozen=True, slots=True)
class Gap:
    """Layers to be run, between two given neighbours (None: the client)."""

    layers: LayerRange
    before: PeerId | None = None
    after: PeerId | None = None
    ring: PeerId | None = None
    """In a ring, the hop at the chain's other end, for a gap at one end; for the whole chain, the
    last hop itself."""

    @property
    def is_whole_ring(self) -> bool:
        """Whether it is to be filled by a ring that ends with the peer that is named."""
        return self.ring is not None and self.before is None and self.after is None


@dataclass(frozen=True, slots=True)
class Way:
    """Hops over a gap, as indexes into a table."""

    table: Table
    hops: tuple[tuple[int, LayerRange], ...]
    cost_s: float

    @property
    def peers(self) -> tuple[PeerId, ...]:
        """In order."""
        return tuple(self.table.peers[index].peer for index, _ in self.hops)


def cheapest(
    table: Table,
    gap: Gap,
    *,
    num_layers: int,
    neighbours: Table,
    first_per_layer: int = FIRST_PER_LAYER,
    bound_s: float = np.inf,
) -> Way | None:
    """The cheapest hops over ``gap``, or None when there are none.

    neighbours: where the peers before and after the gap are looked up, who may be peers that
        nobody would choose any more
    bound_s: ways that cost more are not wanted
    """
    search = _Search(table, gap, num_layers, neighbours, _away_s(table, gap, neighbours))
    inside, way = search.inside(), None
    if not np.isfinite(bound_s):
        first = search.promising(inside, first_per_layer)
        way = search.run(first, np.inf)
        if len(first) == len(inside):
            return way
        if way is None:
            return search.run(inside, np.inf)
        bound_s = way.cost_s
    rest = inside[search.least_s(inside) <= bound_s] if len(inside) else inside
    most = MAX_PEERS
    while len(kept := search.promising(rest, most)) > MAX_PEERS and most > first_per_layer:
        most //= 2
    better = search.run(kept, bound_s)
    if way is None:
        return better
    return better if better is not None and better.cost_s < way.cost_s else way


@dataclass(frozen=True, slots=True)
class _Search:
    table: Table
    gap: Gap
    num_layers: int
    neighbours: Table
    away_s: Floats
    """Round trips to where tokens come from: the last hop of a ring, or the client."""

    def inside(self) -> Indexes:
        """The peers with layers of the gap."""
        begins = np.maximum(self.table.start, self.gap.layers.start)
        return np.flatnonzero(np.minimum(self.table.stop, self.gap.layers.stop) > begins)

    def promising(self, among: Indexes, most: int) -> Indexes:
        """For each layer of the gap at most so many peers: those with the least per layer."""
        if len(among) <= most:
            return among
        table, gap = self.table, self.gap
        start = np.maximum(table.start, gap.layers.start)
        stop = np.minimum(table.stop, gap.layers.stop)
        # A hop and its way are paid once, however many layers it runs.
        cost_s = table.layer_s + (table.fixed_s + self.away_s) / np.maximum(stop - start, 1)
        by_cost = among[np.argsort(cost_s[among], kind="stable")]
        chosen = np.zeros(len(table.peers), dtype=np.bool_)
        for begin in _edges(table, gap.layers)[:-1]:
            covering = by_cost[(start[by_cost] <= begin) & (stop[by_cost] > begin)]
            chosen[covering[:most]] = True
        if gap.is_whole_ring:
            chosen[[i for i in among.tolist() if table.peers[i].peer == gap.ring]] = True
        return np.flatnonzero(chosen)

    def least_s(self, peers: Indexes) -> Floats:
        """What no way through each of those peers can cost less than."""
        table, per_layer_s = self.table, self.least_layers_s(peers)
        # It runs one layer at least; of the others, nobody needs less than the best of them.
        own_s = np.maximum(table.layer_s[peers] - per_layer_s.max(), 0.0)
        least_s: Floats = per_layer_s.sum() + own_s + table.fixed_s[peers]
        return least_s + self.there_and_back_s(peers)

    def there_and_back_s(self, peers: Indexes) -> Floats:
        """What the ways of a chain through each of those peers take at least.

        A chain of the client leads there and back, and a detour is no shorter; but where nobody
        knows where some peer is, a way past it may be predicted to be as short as any unknown one.
        """
        if self.gap.before is not None or self.gap.after is not None:
            return np.zeros(len(peers))
        there_s = self.away_s[peers]
        is_sure = bool((self.table.trust == 1.0).all())
        return there_s if is_sure else np.minimum(there_s, UNKNOWN_RTT_S)

    def least_layers_s(self, peers: Indexes) -> Floats:
        """[layers of the gap]: the least compute time of each layer."""
        each = np.arange(self.gap.layers.start, self.gap.layers.stop)
        start, stop = self.table.start[peers][:, None], self.table.stop[peers][:, None]
        times_s = np.where(
            (start <= each) & (stop > each), self.table.layer_s[peers][:, None], np.inf
        )
        least_s: Floats = times_s.min(axis=0)
        return least_s

    def run(self, among: Indexes, bound_s: float) -> Way | None:
        """The search itself, over those peers, for a way that costs no more than ``bound_s``."""
        if not len(among):
            return None
        table = self.table.only(among)
        edges = _edges(table, self.gap.layers)
        whole = replace(self, table=table, away_s=self.away_s[among])
        every = np.arange(len(table.peers))
        rest_s = np.concatenate(([0.0], np.cumsum(whole.least_layers_s(every)[::-1])))[::-1]
        back_s = whole.there_and_back_s(every) / 2.0
        reached_s = _entries(table, self.gap, self.neighbours) + table.fixed_s
        came_from: list[Indexes] = []
        ways_s = table.ways_s(every, every)
        for at, edge in enumerate(edges[:-1]):
            stop = edges[at + 1]
            columns = np.flatnonzero((table.start <= edge) & (table.stop >= stop))
            source, now_s = _taken_over(table.fixed_s, ways_s, reached_s, columns, is_first=at == 0)
            came_from.append(source)
            reached_s = np.full(len(every), np.inf)
            reached_s[columns] = now_s + table.layer_s[columns] * (stop - edge)
            least_s = reached_s + rest_s[stop - self.gap.layers.start] + back_s
            reached_s[least_s > bound_s + ROUNDING_S] = np.inf
        total_s = reached_s + _exits(table, self.gap, self.num_layers, self.neighbours)
        last = int(total_s.argmin())
        if not np.isfinite(total_s[last]):
            return None
        return Way(table, _traced(edges, came_from, last), float(total_s[last]))


def _away_s(table: Table, gap: Gap, neighbours: Table) -> Floats:
    if gap.ring is None:
        return table.client_rtt_s
    both = table.with_peer(neighbours, gap.ring)
    others = np.arange(len(table.peers))
    away_s: Floats = both.rtt_s(np.array([len(others)]), others)[0]
    away_s[[a.peer == gap.ring for a in table.peers]] = 0.0
    return away_s


def _taken_over(
    fixed_s: Floats, ways_s: Floats, reached_s: Floats, columns: Indexes, *, is_first: bool
) -> tuple[Indexes, Floats]:
    """Who runs on from a boundary: (from whom each peer takes over, what it has cost by then).

    reached_s: what it has cost until each peer had run up to here; of the first boundary, until it
        may begin
    """
    source = np.full(len(reached_s), GOES_ON, dtype=np.intp)
    goes_on_s = reached_s[columns]
    if is_first:
        source[columns] = CLIENT
        return source, goes_on_s
    rows = np.flatnonzero(np.isfinite(reached_s))
    if not len(rows) or not len(columns):
        return source, goes_on_s
    sums_s = ways_s[np.ix_(rows, columns)] + reached_s[rows][:, None]
    best = sums_s.argmin(axis=0)
    takes_over_s = sums_s[best, np.arange(len(columns))] + fixed_s[columns]
    switches = takes_over_s < goes_on_s
    source[columns] = np.where(switches, rows[best], GOES_ON)
    return source, np.where(switches, takes_over_s, goes_on_s)


def _edges(table: Table, layers: LayerRange) -> list[int]:
    """Where a hop may begin or end, in order."""
    edges = np.concatenate((table.start, table.stop, (layers.start, layers.stop)))
    edges = np.unique(edges)
    inside = edges[(edges >= layers.start) & (edges <= layers.stop)]
    return [int(edge) for edge in inside]


def _entries(table: Table, gap: Gap, neighbours: Table) -> Floats:
    """The ways into the gap."""
    if gap.before is None:
        first_s = np.array([table.first_way_s(i) for i in range(len(table.peers))])
        if gap.ring is not None:
            handed_s = _between(table, neighbours, gap.ring, is_before=True, is_handed=True)
            first_s = handed_s + first_s / ANSWER_TOKENS
    else:
        first_s = _between(table, neighbours, gap.before, is_before=True)
    if gap.layers.start == 0 and not table.needs.local_head:
        first_s[[not a.offers_embedding for a in table.peers]] = np.inf
    return first_s


def _exits(table: Table, gap: Gap, num_layers: int, neighbours: Table) -> Floats:
    """The ways out of the gap."""
    if gap.after is None:
        last_s = table.last_way_s()
        if gap.is_whole_ring:
            last_s = np.where([a.peer == gap.ring for a in table.peers], last_s, np.inf)
            last_s /= ANSWER_TOKENS
        elif gap.ring is not None:
            handed_s = _between(table, neighbours, gap.ring, is_before=False, is_handed=True)
            last_s = handed_s + last_s / ANSWER_TOKENS
    else:
        last_s = _between(table, neighbours, gap.after, is_before=False)
    if gap.layers.stop == num_layers and not table.needs.local_head:
        last_s[[not a.offers_head for a in table.peers]] = np.inf
    return last_s


def _between(
    table: Table, neighbours: Table, peer: PeerId, *, is_before: bool, is_handed: bool = False
) -> Floats:
    """The ways between a neighbour of the gap and each peer of the table."""
    both = table.with_peer(neighbours, peer)
    fixed = np.array([len(both.peers) - 1])
    others = np.arange(len(table.peers))
    rows, columns = (fixed, others) if is_before else (others, fixed)
    ways_s = both.ways_s(rows, columns, is_handed=is_handed).ravel()
    ways_s[[a.peer == peer for a in table.peers]] = 0.0 if is_handed else np.inf
    return ways_s


def _traced(
    edges: list[int], came_from: list[Indexes], last: int
) -> tuple[tuple[int, LayerRange], ...]:
    """Walk back from the last peer, and join what one peer ran without a break."""
    hops: list[tuple[int, LayerRange]] = []
    peer, stop = last, edges[-1]
    for at in range(len(came_from) - 1, -1, -1):
        source = int(came_from[at][peer])
        if source != GOES_ON:
            hops.append((peer, LayerRange(edges[at], stop)))
            peer, stop = source, edges[at]
    return tuple(reversed(hops))
