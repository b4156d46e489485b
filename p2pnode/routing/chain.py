"""The cheapest chain over all layers, and the mending of a chain that has lost hops.

Dynamic programming over layer boundaries: the cheapest way to have run the layers below a boundary,
per peer that ran the last of them. Any boundary inside a peer's range may be used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from p2pnode.errors import NoChain, PromptTooLong
from p2pnode.types import Announcement, Chain, Hop, LayerRange, PeerId, SwarmView, uncovered

UNKNOWN_RTT_S = 0.03
AVOIDED_COST_S = 1000.0
"""What a peer costs that has been slow lately: it is the last resort, but better than none."""


@dataclass(frozen=True, slots=True)
class Avoid:
    """What recent experience says against some peers."""

    peers: frozenset[PeerId] = frozenset()
    """Gone, or not willing: never used."""
    slow: frozenset[PeerId] = frozenset()
    """Used when nobody else is left."""
    links: frozenset[tuple[PeerId, PeerId]] = frozenset()
    """(from, to): the first could not reach the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a session asks of a chain."""

    model: str
    fingerprint: str
    num_layers: int
    num_tokens: int
    avoid: Avoid = field(default_factory=Avoid)
    rtts_s: Mapping[PeerId, float] = field(default_factory=dict)
    """Round trips measured from here."""
    local_head: bool = False


@dataclass(frozen=True, slots=True)
class _Way:
    cost_s: float
    hops: tuple[Hop, ...]

    @property
    def last_peer(self) -> PeerId | None:
        return self.hops[-1].peer if self.hops else None


def choose_chain(view: SwarmView, needs: Needs, *, numerics: str | None = None) -> Chain:
    """Cheapest chain over all layers, within one numerics class.

    Raises NoChain with the missing layers, or PromptTooLong when only room is missing.
    """
    usable = _usable(view, needs)
    classes = sorted({a.numerics for a in usable if numerics in (None, a.numerics)})
    whole = LayerRange(0, needs.num_layers)
    ways = [(_cheapest(usable, needs, name, whole, None, None), name) for name in classes]
    found = [(way, name) for way, name in ways if way is not None]
    if not found:
        raise _no_chain(view, usable, needs)
    way, name = min(found, key=lambda each: (each[0].cost_s, each[1]))
    return Chain(way.hops, name)


def mend_chain(view: SwarmView, needs: Needs, chain: Chain, lost: frozenset[int]) -> Chain:
    """The chain with the hops at the ``lost`` indexes replaced and the others kept as they are.

    When a gap cannot be filled between its neighbours: the cheapest new chain. Raises as
    `choose_chain` does.
    """
    usable = _usable(view, needs)
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
        gap = LayerRange(chain.hops[first].layers.start, chain.hops[index - 1].layers.stop)
        before = hops[-1].peer if hops else None
        after = chain.hops[index].peer if index < len(chain.hops) else None
        way = _cheapest(usable, needs, chain.numerics, gap, before, after)
        if way is None:
            return choose_chain(view, needs, numerics=chain.numerics)
        hops.extend(way.hops)
    return Chain(tuple(hops), chain.numerics)


def _usable(view: SwarmView, needs: Needs) -> tuple[Announcement, ...]:
    return tuple(
        a
        for a in view.announcements
        if a.fingerprint == needs.fingerprint
        and a.num_layers == needs.num_layers
        and a.peer not in needs.avoid.peers
        and a.kv_capacity_tokens >= needs.num_tokens
    )


def _cheapest(
    usable: Iterable[Announcement],
    needs: Needs,
    numerics: str,
    gap: LayerRange,
    before: PeerId | None,
    after: PeerId | None,
) -> _Way | None:
    """The cheapest hops over ``gap`` between two given neighbours (None: the client)."""
    peers = sorted((a for a in usable if a.numerics == numerics), key=lambda a: a.peer)
    edges = {gap.start, gap.stop} | {
        edge for a in peers for edge in (a.layers.start, a.layers.stop)
    }
    boundaries = sorted(edge for edge in edges if gap.start <= edge <= gap.stop)
    ways: dict[int, list[_Way]] = {edge: [] for edge in boundaries}
    ways[gap.start] = [_Way(0.0, ())]
    for start in boundaries[:-1]:
        reached = sorted(ways[start], key=lambda way: way.cost_s)
        for peer in peers:
            if not (peer.layers.start <= start < peer.layers.stop) or not reached:
                continue
            way = _best_before(reached, before, peer.peer, needs.avoid)
            if way is None or not _offers_ends(peer, start, needs):
                continue
            for stop in boundaries:
                if start < stop <= peer.layers.stop:
                    hop = Hop(peer.peer, LayerRange(start, stop), peer.addresses)
                    cost_s = way.cost_s + _hop_cost_s(peer, len(hop.layers), needs)
                    ways[stop].append(_Way(cost_s, (*way.hops, hop)))
    ends = [way for way in ways[gap.stop] if _may_link(way.last_peer, after, needs.avoid)]
    ends = [way for way in ends if gap.stop < needs.num_layers or _heads(way, usable, needs)]
    return min(ends, key=lambda way: way.cost_s, default=None)


def _best_before(
    reached: list[_Way], before: PeerId | None, peer: PeerId, avoid: Avoid
) -> _Way | None:
    for way in reached:
        if _may_link(way.last_peer or before, peer, avoid):
            return way
    return None


def _may_link(first: PeerId | None, second: PeerId | None, avoid: Avoid) -> bool:
    """Two neighbouring hops must be two peers, and able to reach each other."""
    if first is None or second is None:
        return True
    return first != second and (first, second) not in avoid.links


def _offers_ends(peer: Announcement, start: int, needs: Needs) -> bool:
    return start > 0 or peer.offers_embedding or needs.local_head


def _heads(way: _Way, usable: Iterable[Announcement], needs: Needs) -> bool:
    offers = {a.peer for a in usable if a.offers_head}
    return needs.local_head or way.last_peer in offers


def _hop_cost_s(peer: Announcement, num_layers: int, needs: Needs) -> float:
    compute_s = peer.latency_s * num_layers / len(peer.layers)
    penalty_s = AVOIDED_COST_S if peer.peer in needs.avoid.slow else 0.0
    return compute_s + needs.rtts_s.get(peer.peer, UNKNOWN_RTT_S) / 2 + penalty_s


def _no_chain(view: SwarmView, usable: tuple[Announcement, ...], needs: Needs) -> Exception:
    served = view.of_model(needs.fingerprint).announcements
    live = [a for a in served if a.peer not in needs.avoid.peers]
    missing = uncovered((a.layers for a in live), needs.num_layers)
    if not missing and uncovered((a.layers for a in usable), needs.num_layers):
        most = max(a.kv_capacity_tokens for a in live)
        what = f"{needs.num_tokens} tokens asked for, but no chain of {needs.model} holds more"
        return PromptTooLong(f"{what} than {most}; ask for less, or shorten the prompt")
    if not missing:
        return NoChain(f"the live peers of {needs.model} cover all layers but cannot be chained")
    ranges = ", ".join(str(layers) for layers in missing)
    gone = len(needs.avoid.peers)
    tried = f"; {gone} {'peer was' if gone == 1 else 'peers were'} tried" if gone else ""
    remedy = f"Serve them with: p2pnode serve --layers {missing[0]}"
    what = f"no live peer serves layers {ranges} of {needs.model}{tried}. {remedy}"
    return NoChain(what, missing)
