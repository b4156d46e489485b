"""What makes an answer slow: each candidate, with what it costs a request. Pure.

Thresholds are relative, so that peers which merely differ are none:

| cause | when |
|---|---|
| overloaded | a step waits longer than it computes, and that is `SHARE` of a token's time; or it works for `SHARED_BY` sessions at a load of `BUSY_LOAD`, and waiting and computing together take that much longer than when it started |
| slow_device | `SLOW_TIMES` what peers need for the same layers (`SLOW_TIMES_ELSEWHERE` where only peers of other layers can tell), or `FALLEN_TIMES` what it measured itself when it started; and the excess is `SHARE` of a token's time |
| network | the median round trip is above the limit; or `LATE_SHARE` of them are late, several times as many as to other peers; or the way from the hop before is longer than half the limit |
| thin_link | the prompt's rows are under way for longer than all else until the first token takes |
| split_too_fine | `MIN_FINE_HOPS` or more, most of which compute for less than `FINE_SHARE` of the way to them, and ways are `WAYS_SHARE` of a token's time |
| discovery | to join, to read the directory, or to greet a hop takes seconds |
"""  # noqa: E501 - a table

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from p2pnode.doctor.measured import (
    ANSWER_TOKENS,
    PROMPT_TOKENS,
    ChainMeasured,
    HopMeasured,
    Measured,
)
from p2pnode.doctor.report import Cause, Verdict
from p2pnode.doctor.words import ms, name
from p2pnode.routing.steps import step_s
from p2pnode.types import Announcement, PeerHealth, PeerId

SHARE = 1 / 3
"""Of the time of a token: less is not why it is slow."""
MIN_EXCESS_S = 0.005
"""Per token; below, clocks and schedulers speak."""
SLOW_TIMES = 3.0
SLOW_TIMES_ELSEWHERE = 6.0
"""Blocks of other layers may have an embedding or a head, which count like layers."""
FALLEN_TIMES = 2.5
SHARED_BY = 3
BUSY_LOAD = 0.3
LATE_S = 0.15
"""A round trip that takes so much longer than the median is late: something was lost, or stood."""
MIN_LATE = 4
LATE_SHARE = 0.15
LATE_TIMES = 3.0
"""As many as to the other hops: what is late on all ways at once is this machine."""
MIN_MOVE_S = 0.1
MIN_FINE_HOPS = 4
FINE_SHARE = 0.25
WAYS_SHARE = 2 / 3
SLOW_JOIN_S = 5.0
SLOW_DIRECTORY_S = 3.0
SLOW_GREETING_S = 1.0
GREETING_TRIPS = 8.0
"""Round trips that dialling, encryption and greetings may take."""

REMEDY_DEVICE = (
    "have its owner check what else runs there and how hot it is; let it serve fewer layers, or "
    "another node the same ones"
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A cause, and the seconds that it costs a request."""

    cost_s: float
    verdict: Verdict


def candidates(measured: Measured) -> list[Candidate]:
    """All that is slow enough to be a cause."""
    found = [*_finding(measured)]
    chain = measured.chain
    if chain is None:
        return found
    for index, hop in enumerate(chain.hops):
        found += _waiting(measured, chain, hop)
        found += _computing(measured, chain, hop)
        found += _far(measured, chain, index)
        found += _thin(chain, index)
    return [*found, *_too_fine(chain)]


# --- the device


def _waiting(measured: Measured, chain: ChainMeasured, hop: HopMeasured) -> Iterator[Candidate]:
    queue_s, compute_s = hop.queue_s or 0.0, hop.compute_s or 0.0
    if queue_s < max(compute_s, MIN_EXCESS_S, SHARE * (chain.token_s or 0.0)):
        return
    known = measured.view.health.get(hop.peer)
    load = ""
    if known is not None:
        told = known.health
        load = f"; its load is {told.device_load:.0%} with {told.num_sessions} sessions"
    evidence = (
        f"steps wait {ms(queue_s)} for the device of {name(hop.peer)}, layers {hop.layers}, and "
        f"compute for {ms(compute_s)}{load}"
    )
    yield Candidate(_per_token(queue_s), _overloaded(hop.peer, evidence))


def _computing(measured: Measured, chain: ChainMeasured, hop: HopMeasured) -> Iterator[Candidate]:
    own = next((a for a in measured.view.announcements if a.peer == hop.peer), None)
    if own is None or not own.layers:
        return
    known = measured.view.health.get(hop.peer)
    share = len(hop.layers) / len(own.layers)
    computed_s = hop.compute_s
    if computed_s is None:  # not a single step of ours was done: what it tells of others'
        computed_s = step_s(own, known.health if known is not None else None, 1) * share
    before_s = own.latency_s * share
    usual_s, times, whose = _usual(measured, own, len(hop.layers))
    if _is_shared(known):
        excess_s = computed_s + (hop.queue_s or 0.0) - before_s
    else:
        limits = [(before_s, FALLEN_TIMES)] if before_s > 0 else []
        limits += [(usual_s, times)] if usual_s is not None else []
        excesses = [computed_s - s for s, most in limits if computed_s >= most * s]
        excess_s = max(excesses, default=0.0)
    if excess_s < max(MIN_EXCESS_S, SHARE * (chain.token_s or 0.0)):
        return
    others = f"; {whose} need {ms(usual_s)}" if usual_s is not None else ""
    evidence = (
        f"{name(hop.peer)} computes layers {hop.layers} for {ms(computed_s)} per token{others}; "
        f"when it started it took {ms(before_s)}{_bandwidth(measured, own)}"
    )
    yield Candidate(_per_token(excess_s), _slow_or_shared(known, hop.peer, evidence))


def _slow_or_shared(known: PeerHealth | None, peer: PeerId, evidence: str) -> Verdict:
    """Utilisation against latency: who is busy for many is overloaded, who is not is slow."""
    if known is not None:
        health = known.health
        evidence += f"; its load is {health.device_load:.0%} with {health.num_sessions} sessions"
        if _is_shared(known):
            return _overloaded(peer, evidence)
    return Verdict(cause=Cause.SLOW_DEVICE, peer=peer, evidence=evidence, remedy=REMEDY_DEVICE)


def _is_shared(known: PeerHealth | None) -> bool:
    """Whether a device has its hands full with the sessions of several."""
    if known is None:
        return False
    return known.health.num_sessions >= SHARED_BY and known.health.device_load >= BUSY_LOAD


def _overloaded(peer: PeerId, evidence: str) -> Verdict:
    remedy = "let another node serve the same layers, or ask when there is less to do"
    return Verdict(cause=Cause.OVERLOADED, peer=peer, evidence=evidence, remedy=remedy)


def _usual(
    measured: Measured, own: Announcement, num_layers: int
) -> tuple[float | None, float, str]:
    """What others need for so many layers (median), how many times that is slow, and who they are.

    Of those with the same layers where there are any, else of all.
    """
    others = [a for a in measured.view.announcements if a.peer != own.peer and a.layers]
    same = [
        a for a in others if a.layers.start < own.layers.stop and own.layers.start < a.layers.stop
    ]
    chosen = same or others
    if not chosen:
        return None, math.inf, ""
    health = measured.view.health
    each = [
        step_s(a, health[a.peer].health if a.peer in health else None, 1) / len(a.layers)
        for a in chosen
    ]
    usual_s = statistics.median(each) * num_layers
    if same:
        return usual_s, SLOW_TIMES, "peers with the same layers"
    return usual_s, SLOW_TIMES_ELSEWHERE, "peers with as many other layers"


def _bandwidth(measured: Measured, own: Announcement) -> str:
    """Its own measured bandwidth against the others': a weak device, or one that is held up."""
    rates = [a.memory_bytes_per_s for a in measured.view.announcements if a.peer != own.peer]
    known = [rate for rate in rates if rate > 0]
    if own.memory_bytes_per_s <= 0 or not known:
        return ""
    usual = statistics.median(known)
    said = f"{own.memory_bytes_per_s / 1e9:.1f} GB/s of memory, its peers {usual / 1e9:.1f}"
    return f" and moved {said}"


# --- the ways


def _far(measured: Measured, chain: ChainMeasured, index: int) -> Iterator[Candidate]:
    hop, limit_s = chain.hops[index], measured.rtt_limit_s
    rtt_s = hop.ways.median_s
    if rtt_s is not None and rtt_s > limit_s:
        near = [h.ways.median_s for h in chain.hops if h is not hop and h.ways.median_s is not None]
        others = f", to the other hops {ms(statistics.median(near))}" if near else ""
        evidence = f"round trips to {name(hop.peer)} take {ms(rtt_s)}{others}; limit {ms(limit_s)}"
        yield _network(rtt_s, hop.peer, evidence)
        return
    late, usual = _late_share(hop), [_late_share(h) for h in chain.hops if h is not hop]
    is_its_own = late > LATE_TIMES * (statistics.median(usual) if usual else 0.0)
    if hop.ways.num_late(LATE_S) >= MIN_LATE and late >= LATE_SHARE and is_its_own:
        what = f"{hop.ways.num_late(LATE_S)} of {hop.ways.num_sent} round trips to "
        median_s = rtt_s or 0.0
        evidence = f"{what}{name(hop.peer)} were lost or late (usual: {ms(median_s)})"
        yield _network(max(hop.ways.excess_s(), late * LATE_S), hop.peer, evidence)
    between_s = (hop.way_s or 0.0) - (hop.transfer_s or 0.0) / PROMPT_TOKENS
    if index and between_s > limit_s / 2:
        before = chain.hops[index - 1]
        evidence = f"from {name(before.peer)} to {name(hop.peer)} it is {ms(between_s)} one way"
        yield _network(between_s, hop.peer, f"{evidence}; limit {ms(limit_s / 2)}")


def _late_share(hop: HopMeasured) -> float:
    return hop.ways.num_late(LATE_S) / hop.ways.num_sent if hop.ways.num_sent else 0.0


def _network(cost_s: float, peer: PeerId, evidence: str) -> Candidate:
    remedy = "use peers nearer to each other, or check that peer's line (and yours, if all are far)"
    verdict = Verdict(cause=Cause.NETWORK, peer=peer, evidence=evidence, remedy=remedy)
    return Candidate(_per_token(cost_s), verdict)


def _thin(chain: ChainMeasured, index: int) -> Iterator[Candidate]:
    hop, first_s = chain.hops[index], chain.ttft_s
    move_s = hop.transfer_s or 0.0
    if not index or first_s is None or move_s < max(MIN_MOVE_S, first_s / 2):
        return
    before = chain.hops[index - 1]
    yield Candidate(
        move_s * (1 + ANSWER_TOKENS / PROMPT_TOKENS),
        Verdict(
            cause=Cause.THIN_LINK,
            peer=before.peer,
            evidence=f"{PROMPT_TOKENS} rows are under way for {ms(move_s)} from "
            f"{name(before.peer)} to {name(hop.peer)}, of {ms(first_s)} until the first token; a "
            f"token is there in {ms(hop.way_s or 0.0)}",
            remedy=f"{name(before.peer)} needs a faster uplink ({name(hop.peer)} a faster "
            "downlink), or serve with --wire int8, or have these layers at one peer",
        ),
    )


def _too_fine(chain: ChainMeasured) -> Iterator[Candidate]:
    hops = [hop for hop in chain.hops if hop.way_s is not None and hop.compute_s is not None]
    if len(chain.hops) < MIN_FINE_HOPS or len(hops) < len(chain.hops) or not chain.token_s:
        return
    ways = [hop.way_s or 0.0 for hop in hops]
    idle = [hop for hop in hops if (hop.compute_s or 0.0) < FINE_SHARE * (hop.way_s or 0.0)]
    way_s = statistics.median(ways)
    if len(idle) * 2 <= len(hops) or sum(ways) < WAYS_SHARE * chain.token_s:
        return
    saved_s = (len(hops) - 1) * way_s
    if saved_s < MIN_EXCESS_S:
        return
    computed_s = sum(hop.compute_s or 0.0 for hop in hops)
    yield Candidate(
        _per_token(saved_s),
        Verdict(
            cause=Cause.SPLIT_TOO_FINE,
            evidence=f"{len(hops)} hops compute for {ms(computed_s)} per token and the ways to "
            f"them take {ms(sum(ways))} of {ms(chain.token_s)}",
            remedy="let fewer peers serve more layers each; p2pnode plan says what fits",
        ),
    )


# --- finding and greeting


def _finding(measured: Measured) -> Iterator[Candidate]:
    join_s, directory_s = measured.join_s or 0.0, measured.directory_s or 0.0
    if join_s > SLOW_JOIN_S:
        remedy = "name peers that are there: --join, bootstrap_peers.txt"
        yield _discovery(join_s, f"to join the swarm took {ms(join_s)}", remedy)
    if directory_s > SLOW_DIRECTORY_S:
        remedy = "peers that have died are still asked: wait a minute, or join through others"
        yield _discovery(directory_s, f"to read the directory took {ms(directory_s)}", remedy)
    for hop in measured.chain.hops if measured.chain is not None else ():
        most_s = max(SLOW_GREETING_S, GREETING_TRIPS * (hop.ways.median_s or 0.0))
        if hop.connect_s is not None and hop.connect_s > most_s:
            what = f"{name(hop.peer)} was reached after {ms(hop.connect_s)}"
            rtt = f"; a round trip takes {ms(hop.ways.median_s)}" if hop.ways.median_s else ""
            remedy = "see that it announces addresses that can be dialled (--announce)"
            yield _discovery(hop.connect_s, f"{what}{rtt}", remedy, hop.peer)


def _discovery(cost_s: float, evidence: str, remedy: str, peer: PeerId | None = None) -> Candidate:
    return Candidate(
        cost_s, Verdict(cause=Cause.DISCOVERY, peer=peer, evidence=evidence, remedy=remedy)
    )


def _per_token(seconds: float) -> float:
    return seconds * (ANSWER_TOKENS + 1)
