"""The cheapest chain over all layers, the mending of one that has lost hops, and standbys.

Pure: what is known is handed in as `SwarmView` and `Needs`; a draw that spreads sessions over peers
of about the same cost comes from an ``rng`` of the caller's. Without one the choice is repeatable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from p2pnode.routing.members import members_of
from p2pnode.routing.needs import Draw, Needs
from p2pnode.routing.rings import cheapest_ring
from p2pnode.routing.search import Gap, Way, cheapest
from p2pnode.routing.table import Table
from p2pnode.routing.terms import SUSPECT_COST_S, Terms
from p2pnode.routing.trouble import no_chain, too_slow
from p2pnode.types import (
    Announcement,
    Chain,
    Hop,
    LayerRange,
    Liveness,
    PeerId,
    SwarmView,
)


@dataclass(frozen=True, slots=True)
class Choice:
    """A chain, and the sum that speaks for it."""

    chain: Chain
    terms: tuple[Terms, ...]
    """One per hop."""
    return_s: float
    """The way from the last hop back to the client; 0 in a ring, which needs none."""

    @property
    def time_s(self) -> float:
        """The predicted time of a token."""
        return sum(each.time_s for each in self.terms) + self.return_s

    @property
    def total_s(self) -> float:
        """The sum that is compared: with risk and spread."""
        return sum(each.total_s for each in self.terms) + self.return_s


def choose_chain(
    view: SwarmView, needs: Needs, *, numerics: str | None = None, rng: Draw | None = None
) -> Chain:
    """Cheapest chain over all layers, within one numerics class and the limits of ``needs``.

    Raises NoChain with the missing layers, or with the hop that makes every chain too slow;
    PromptTooLong when only room is missing.
    """
    return choose(view, needs, tables_of(view, needs, numerics, rng)).chain


def choose(view: SwarmView, needs: Needs, tables: Mapping[str, Table]) -> Choice:
    """See `choose_chain`; with the terms of the sum.

    tables: of this view and these needs, by `tables_of`
    """
    choice = cheapest_choice(tables, needs)
    if choice is None:
        raise no_chain(view, needs, usable_peers(view, needs))
    if needs.limit_s is None or choice.time_s <= needs.limit_s:
        return choice
    # The cheapest weighs risks, too; asked for a limit, time alone counts.
    timed = {name: _timed(table) for name, table in tables.items()}
    fastest = cheapest_choice(timed, needs) or choice
    if fastest.time_s > needs.limit_s:
        raise too_slow(needs, fastest.chain, fastest.terms, fastest.return_s)
    return fastest


def mend_chain(
    view: SwarmView,
    needs: Needs,
    chain: Chain,
    lost: frozenset[int],
    *,
    rng: Draw | None = None,
) -> Chain:
    """The chain with the hops at the ``lost`` indexes replaced and the others kept as they are.

    The peers of lost hops are the last resort. When a gap cannot be filled between its neighbours:
    the cheapest new chain. The limits of ``needs`` do not count: a slower answer is better than
    half of one. Raises as `choose_chain` does.
    """
    needs = _for_mending(needs, chain, lost)
    usable = [a for a in usable_peers(view, needs) if a.numerics == chain.numerics]
    table = Table.of(view, usable, needs, chain.numerics, rng)
    neighbours = members_of(view, needs, chain)
    hops: list[Hop] = []
    index = 0
    while index < len(chain.hops):
        if index not in lost:
            hops.append(chain.hops[index])
            index += 1
            continue
        first = index
        while index < len(chain.hops) and index in lost:
            index += 1
        layers = LayerRange(chain.hops[first].layers.start, chain.hops[index - 1].layers.stop)
        after = chain.hops[index].peer if index < len(chain.hops) else None
        ring = _other_end(needs, chain, layers, lost)
        gap = Gap(layers, hops[-1].peer if hops else None, after, ring)
        way = cheapest(table, gap, num_layers=needs.num_layers, neighbours=neighbours)
        if way is None:
            return choose_chain(view, needs, numerics=chain.numerics, rng=rng)
        hops.extend(_hops(way))
    return Chain(_carried(hops, needs), chain.numerics)


def choose_standby(view: SwarmView, needs: Needs, chain: Chain, index: int) -> Hop | None:
    """The best other peer for exactly that hop's layers, in its numerics class; None if nobody.

    Not a neighbour of the hop, nor one that leaves; a peer of the chain
    only when nobody else is there.
    """
    hop = chain.hops[index]
    before = chain.hops[index - 1].peer if index else None
    after = chain.hops[index + 1].peer if index + 1 < len(chain.hops) else None
    members = frozenset(each.peer for each in chain.hops)
    slow = needs.avoid.slow | members
    others = {hop.peer} | ({before, after} - {None})
    needs = replace(needs, avoid=replace(needs.avoid, slow=slow))
    usable = [
        a
        for a in usable_peers(view, needs)
        if a.numerics == chain.numerics and a.layers.covers(hop.layers) and a.peer not in others
    ]
    leaving = {peer for peer, each in view.health.items() if each.health.is_draining}
    barred = {b for a, b in needs.avoid.links if a == before}
    barred |= {a for a, b in needs.avoid.links if b == after}
    usable = [a for a in usable if a.peer not in leaving | barred]
    if not usable:
        return None
    table = Table.of(view, usable, needs, chain.numerics, None)
    gap = Gap(hop.layers, before, after, _other_end(needs, chain, hop.layers, frozenset()))
    neighbours = members_of(view, needs, chain)
    # Nobody shares the layers with another one: each range is that of the hop.
    whole = replace(
        table,
        start=np.full_like(table.start, hop.layers.start),
        stop=np.full_like(table.stop, hop.layers.stop),
    )
    way = cheapest(whole, gap, num_layers=needs.num_layers, neighbours=neighbours)
    return None if way is None else _hops(way)[0]


def tables_of(
    view: SwarmView, needs: Needs, numerics: str | None, rng: Draw | None
) -> dict[str, Table]:
    """A table per numerics class (or of that one alone), by its name."""
    usable = usable_peers(view, needs)
    classes = sorted({a.numerics for a in usable if numerics in (None, a.numerics)})
    return {
        name: Table.of(view, [a for a in usable if a.numerics == name], needs, name, rng)
        for name in classes
    }


def predicted(view: SwarmView, needs: Needs, chain: Chain) -> Choice:
    """What the terms of a given chain are, whether or not it would be chosen; without a draw."""
    table = members_of(view, needs, chain)
    hops = tuple((table.index(hop.peer), hop.layers) for hop in chain.hops)
    return choice_of(Way(table, hops, 0.0), chain.numerics)


def usable_peers(view: SwarmView, needs: Needs) -> tuple[Announcement, ...]:
    """The announcements that may be used at all, by peer id."""
    found = [
        a
        for a in view.announcements
        if a.fingerprint == needs.fingerprint
        and a.num_layers == needs.num_layers
        and a.peer not in needs.avoid.peers
        and a.kv_capacity_tokens >= needs.num_tokens
        and _is_there(view, needs, a.peer)
    ]
    return tuple(sorted(found, key=lambda a: a.peer))


def _is_there(view: SwarmView, needs: Needs, peer: PeerId) -> bool:
    """Whether it is not known to be dead, and has room now."""
    known = view.health.get(peer)
    if known is None:
        return True
    free = known.health.kv_free_tokens
    has_room = free is None or free >= needs.num_tokens or peer in needs.held_by
    return has_room and known.liveness is not Liveness.DEAD


def cheapest_choice(tables: Mapping[str, Table], needs: Needs) -> Choice | None:
    """The cheapest chain of any of the tables, whatever the limits say."""
    whole = Gap(LayerRange(0, needs.num_layers))
    ways = []
    for name, table in tables.items():
        if needs.has_ring:
            way = cheapest_ring(table)
        else:
            way = cheapest(table, whole, num_layers=needs.num_layers, neighbours=table)
        if way is not None:
            ways.append((way.cost_s, name, way))
    if not ways:
        return None
    _, name, way = min(ways, key=lambda each: each[:2])
    return choice_of(way, name)


def choice_of(way: Way, numerics: str) -> Choice:
    """A way over all layers as a chain with the terms of its sum."""
    is_handed, last = way.table.needs.has_ring, way.hops[-1][0]
    terms: list[Terms] = []
    before = last if is_handed else None
    for index, layers in way.hops:
        terms.append(way.table.terms(index, layers, before, is_handed=is_handed and not terms))
        before = index
    back_s = 0.0 if is_handed else float(way.table.last_way_s()[last])
    return Choice(Chain(_hops(way), numerics), tuple(terms), back_s)


def _hops(way: Way) -> tuple[Hop, ...]:
    peers = way.table.peers
    hops = [Hop(peers[i].peer, layers, peers[i].addresses) for i, layers in way.hops]
    return _carried(hops, way.table.needs)


def _carried(hops: Sequence[Hop], needs: Needs) -> tuple[Hop, ...]:
    """The same hops; those that the hop before cannot reach get their input from the client."""
    before = [None, *(hop.peer for hop in hops)]
    return tuple(
        replace(hop, is_carried=(previous, hop.peer) in needs.avoid.links)
        for previous, hop in zip(before, hops, strict=False)
    )


def _other_end(
    needs: Needs, chain: Chain, layers: LayerRange, lost: frozenset[int]
) -> PeerId | None:
    """For a gap at one end of a ring: the hop at the other end, where that one is left."""
    is_first, is_last = layers.start == 0, layers.stop == needs.num_layers
    index = len(chain.hops) - 1 if is_first else 0
    if not needs.has_ring or is_first == is_last or index in lost:
        return None
    return chain.hops[index].peer


def _timed(table: Table) -> Table:
    """Without spread and small risks."""
    large_s = np.where(table.risk_s >= SUSPECT_COST_S, table.risk_s, 0.0)
    return replace(table, risk_s=large_s, spread_s=np.zeros_like(table.spread_s))


def _for_mending(needs: Needs, chain: Chain, lost: frozenset[int]) -> Needs:
    failed = frozenset(chain.hops[index].peer for index in lost)
    kept = frozenset(hop.peer for i, hop in enumerate(chain.hops) if i not in lost)
    avoid = replace(needs.avoid, slow=needs.avoid.slow | (failed - kept))
    return replace(
        needs, avoid=avoid, held_by=needs.held_by | kept, max_token_s=None, min_tokens_per_s=None
    )
