"""From measured values to the one cause that matters most. Pure.

1. What fails goes before what is slow, in this order: no swarm (`discovery`), a peer that failed in
   the probe or tells of errors (`memory_pressure` when it ran out of memory, else `node_failing`),
   no room (`overloaded`), layers that nobody serves (`discovery`).
2. Of what is slow (`doctor.slow`), the cause that costs a request of `PROMPT_TOKENS` and
   `ANSWER_TOKENS` the most seconds.
3. This machine's own memory, where nothing else explains it, or where the slow peer runs here.

A single noisy sample decides nothing: times are medians, late pings and errors are counted, and a
peer that was late once is not failing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from p2pnode.doctor import failing, slow
from p2pnode.doctor.measured import Measured
from p2pnode.doctor.report import Cause, Verdict
from p2pnode.doctor.words import ms
from p2pnode.types import PeerId


def judge(measured: Measured) -> Verdict:
    """The cause, whose, why, and what to do."""
    for rule in RULES:
        verdict = rule(measured)
        if verdict is not None:
            return verdict
    return _healthy(measured)


def _slow(measured: Measured) -> Verdict | None:
    found = slow.candidates(measured)
    if not found:
        return None
    worst = max(found, key=lambda each: each.cost_s).verdict
    if worst.cause is not Cause.SLOW_DEVICE or worst.peer not in measured.own_peers:
        return worst
    if measured.pressure:
        return _pressed(measured, worst.peer)
    return replace(worst, evidence=f"{worst.evidence}; it runs here: {measured.device}")


def _pressure(measured: Measured) -> Verdict | None:
    return _pressed(measured, None) if measured.pressure else None


def _pressed(measured: Measured, peer: PeerId | None) -> Verdict:
    return Verdict(
        cause=Cause.MEMORY_PRESSURE,
        peer=peer,
        evidence=f"this machine: {measured.pressure}",
        remedy="end what else needs memory here, or serve fewer layers (--vram limits a node)",
    )


def _healthy(measured: Measured) -> Verdict:
    chain = measured.chain
    if chain is None or chain.token_s is None:
        return Verdict(cause=Cause.NONE, evidence="the swarm answers")
    rtts = [hop.ways.median_s for hop in chain.hops if hop.ways.median_s is not None]
    first = "" if chain.ttft_s is None else f", the first after {ms(chain.ttft_s)}"
    away = f"; round trips {ms(min(rtts))} to {ms(max(rtts))}" if rtts else ""
    hops = f"{len(chain.hops)} {'hop' if len(chain.hops) == 1 else 'hops'}"
    evidence = f"{hops}, {ms(chain.token_s)} per token{first}{away}"
    return Verdict(cause=Cause.NONE, evidence=evidence)


RULES: tuple[Callable[[Measured], Verdict | None], ...] = (
    failing.no_swarm,
    failing.blamed,
    failing.errors_told,
    failing.no_room,
    failing.uncovered,
    _slow,
    failing.no_token,
    failing.apart,
    _pressure,
)
"""The first that finds something is right."""
