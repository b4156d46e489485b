"""Why this chain and not another one: the choice and the runners-up, with the terms of the sum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from p2pnode.routing.chain import Choice, cheapest_choice, choose, tables_of, usable_peers
from p2pnode.routing.needs import Draw, Needs
from p2pnode.routing.table import Table
from p2pnode.types import Chain, SwarmView

NUM_OTHERS = 3


@dataclass(frozen=True, slots=True)
class Explanation:
    """A choice among chains, as values."""

    chosen: Choice
    others: tuple[Choice, ...]
    """The best ones that do without some peer of the chosen one, cheapest first."""
    num_peers: int
    """How many could have been used."""
    limit_s: float | None
    """The longest that a token was allowed to take."""
    has_ring: bool
    """Whether the last hop hands tokens to the first one, so that they need no way here."""


def explain(
    view: SwarmView, needs: Needs, *, numerics: str | None = None, rng: Draw | None = None
) -> Explanation:
    """What `choose_chain` takes with these arguments, and what else there was; raises as it does.

    rng: in the same state, for the same draw
    """
    tables = tables_of(view, needs, numerics, rng)
    chosen = choose(view, needs, tables)
    found: dict[Chain, Choice] = {}
    for name, table in tables.items():
        for part in _parts(table, chosen):
            choice = cheapest_choice({name: part}, needs)
            if choice is not None and choice.chain != chosen.chain:
                found.setdefault(choice.chain, choice)
    others = sorted(found.values(), key=lambda choice: choice.total_s)[:NUM_OTHERS]
    num_peers = len(usable_peers(view, needs))
    return Explanation(chosen, tuple(others), num_peers, needs.limit_s, needs.has_ring)


def _parts(table: Table, chosen: Choice) -> list[Table]:
    """The table, and the table without each peer of the chosen chain."""
    members = {hop.peer for hop in chosen.chain.hops}
    indexes = [i for i, a in enumerate(table.peers) if a.peer in members]
    every = np.arange(len(table.peers))
    return [table, *(table.only(np.delete(every, index)) for index in indexes)]
