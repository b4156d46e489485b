"""Why there is no chain: which layers, which room or which hop, by how much, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from p2pnode.errors import NoChain, P2PNodeError, PromptTooLong
from p2pnode.routing.needs import Needs
from p2pnode.routing.terms import Terms
from p2pnode.types import Announcement, Chain, LayerRange, Liveness, SwarmView, uncovered


def no_chain(view: SwarmView, needs: Needs, usable: Sequence[Announcement]) -> P2PNodeError:
    """What stands in the way of any chain at all."""
    served = view.of_model(needs.fingerprint).announcements
    live = [a for a in served if a.peer not in needs.avoid.peers and not _is_dead(view, a)]
    missing = uncovered((a.layers for a in live), needs.num_layers)
    if missing:
        return _missing(needs, missing)
    if uncovered((a.layers for a in _roomy(needs, live)), needs.num_layers):
        most = max(a.kv_capacity_tokens for a in live)
        what = f"{needs.num_tokens} tokens asked for, but no chain of {needs.model} holds more"
        return PromptTooLong(f"{what} than {most}; ask for less, or shorten the prompt")
    full = uncovered((a.layers for a in usable), needs.num_layers)
    if full:
        ranges = ", ".join(map(str, full))
        what = f"no peer has room for {needs.num_tokens} tokens now in layers {ranges}"
        return NoChain(f"{what} of {needs.model}; ask again in a while, or for less", full)
    return NoChain(f"the live peers of {needs.model} cover all layers but cannot be chained")


def is_full(view: SwarmView, needs: Needs) -> bool:
    """Whether there would be a chain if the sessions that run now had ended."""
    served = view.of_model(needs.fingerprint).announcements
    live = [a for a in served if a.peer not in needs.avoid.peers and not _is_dead(view, a)]
    roomy = _roomy(needs, live)
    now = [a for a in roomy if _room_now(view, a) >= needs.num_tokens]
    whole = needs.num_layers
    return not uncovered((a.layers for a in roomy), whole) and bool(
        uncovered((a.layers for a in now), whole)
    )


def too_slow(needs: Needs, chain: Chain, terms: Sequence[Terms], return_s: float) -> P2PNodeError:
    """Even the fastest chain takes longer than ``needs`` allows; names the longest hop."""
    limit_s = needs.limit_s or 0.0
    time_s = sum(each.time_s for each in terms) + return_s
    index = max(range(len(terms)), key=lambda at: terms[at].time_s)
    hop, most = chain.hops[index], terms[index]
    parts = {
        "compute": most.compute_s,
        "queue": most.queue_s,
        "the way there": most.way_s + most.transfer_s,
        "more than predicted": most.measured_s,
    }
    told = ", ".join(f"{name} {_ms(s)}" for name, s in parts.items() if s >= 0.0005)
    what = f"the fastest chain of {needs.model} would take {_ms(time_s)} per token"
    over = f"{_ms(time_s - limit_s)} more than the {_ms(limit_s)} asked for"
    where = f"most of it at peer {hop.peer.short}, layers {hop.layers}: {_ms(most.time_s)}"
    return NoChain(f"{what}, {over}; {where} ({told}). Ask for less, or serve these layers nearer")


def _is_dead(view: SwarmView, announcement: Announcement) -> bool:
    known = view.health.get(announcement.peer)
    return known is not None and known.liveness is Liveness.DEAD


def _roomy(needs: Needs, live: Sequence[Announcement]) -> list[Announcement]:
    return [a for a in live if a.kv_capacity_tokens >= needs.num_tokens]


def _room_now(view: SwarmView, announcement: Announcement) -> int:
    known = view.health.get(announcement.peer)
    free = None if known is None else known.health.kv_free_tokens
    return announcement.kv_capacity_tokens if free is None else free


def _missing(needs: Needs, missing: tuple[LayerRange, ...]) -> NoChain:
    ranges = ", ".join(map(str, missing))
    gone = len(needs.avoid.peers)
    tried = f"; {gone} {'peer was' if gone == 1 else 'peers were'} tried" if gone else ""
    remedy = f"Serve them with: p2pnode serve --layers {missing[0]}"
    return NoChain(
        f"no live peer serves layers {ranges} of {needs.model}{tried}. {remedy}", missing
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.{0 if abs(seconds) >= 0.01 else 1}f} ms"
