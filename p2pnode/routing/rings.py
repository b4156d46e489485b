"""The cheapest ring over all layers: a chain whose last hop hands its tokens to its first one.

What the last hop is fixes where tokens come from, and the rest is the search of a chain as seen
from there. So peers that could be the last hop are tried, each within what the best one so far has
cost. In a large swarm only the most promising are: those to whom, layer by layer, somebody quick
and near is left.
"""

from __future__ import annotations

import numpy as np

from p2pnode.routing.search import ROUNDING_S, Gap, Way, cheapest
from p2pnode.routing.table import Table
from p2pnode.routing.terms import Floats, Indexes
from p2pnode.types import LayerRange

MANY_PEERS = 100
MAX_LASTS = 12, 4
"""Last hops that are tried, among a few peers and among many."""
MAX_LOOKED_AT = 64
"""Last hops whose surroundings are looked at."""
MAX_LAYERS_LOOKED_AT = 8


def cheapest_ring(table: Table) -> Way | None:
    """The cheapest hops over all layers that hand tokens round; None when there are none."""
    num_layers = table.needs.num_layers
    whole = LayerRange(0, num_layers)
    best: Way | None = None
    for last in _lasts(table).tolist():
        bound_s = np.inf if best is None else best.cost_s
        gap = Gap(whole, ring=table.peers[last].peer)
        way = cheapest(table, gap, num_layers=num_layers, neighbours=table, bound_s=bound_s)
        if way is not None and (best is None or way.cost_s < best.cost_s - ROUNDING_S):
            best = way
    # Those that were tried may have been nobody's last hop; then any chain will do.
    return best or cheapest(table, Gap(whole), num_layers=num_layers, neighbours=table)


def _lasts(table: Table) -> Indexes:
    """Peers that could be the last hop, the most promising first."""
    lasts = np.flatnonzero(table.stop == table.needs.num_layers)
    lasts = lasts[[table.peers[index].offers_head for index in lasts.tolist()]]
    own_s = table.fixed_s + table.layer_s * (table.stop - table.start)
    lasts = lasts[np.argsort(own_s[lasts], kind="stable")][:MAX_LOOKED_AT]
    if len(lasts) <= 1:
        return lasts
    order = np.argsort(_surroundings_s(table, lasts), kind="stable")
    most = MAX_LASTS[len(table.peers) > MANY_PEERS]
    chosen: Indexes = lasts[order][:most]
    return chosen


def _surroundings_s(table: Table, lasts: Indexes) -> Floats:
    """[lasts]: about what some layers cost, each at the best peer for it as seen from there."""
    every = np.arange(len(table.peers))
    away_s = table.rtt_s(lasts, every)
    away_s[lasts[:, None] == every[None, :]] = 0.0
    each_s = table.layer_s + (table.fixed_s + away_s) / np.maximum(table.stop - table.start, 1)
    sum_s = np.zeros(len(lasts))
    num_layers = table.needs.num_layers
    for layer in np.linspace(0, num_layers - 1, min(num_layers, MAX_LAYERS_LOOKED_AT)).astype(int):
        running = (table.start <= layer) & (table.stop > layer)
        if running.any():
            sum_s += each_s[:, running].min(axis=1)
    return sum_s
