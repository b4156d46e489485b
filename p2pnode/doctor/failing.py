"""What fails: no swarm, no chain, peers that die, hang, or tell of errors. Pure.

Each rule gives a `Verdict` when it holds, else None; `doctor.rules` says in which order they go.
"""

from __future__ import annotations

import statistics
from collections import Counter

from p2pnode.doctor import slow
from p2pnode.doctor.measured import HopMeasured, Measured
from p2pnode.doctor.report import Cause, Verdict
from p2pnode.doctor.words import layers_of, ms, name
from p2pnode.errors import PeerError, PeerRefused, PeerTimeout
from p2pnode.log import escape
from p2pnode.pipeline.roles import Accused, Forgot, Outpaced
from p2pnode.routing.steps import step_s
from p2pnode.types import Liveness, PeerId

MIN_ERRORS = 3
"""So many errors in the last minutes make a peer a failing one, when it is that much worse than
its peers (`ERROR_TIMES`)."""
ERROR_TIMES = 3.0
MIN_OUT_OF_MEMORY = 2
"""One may be a single session that was too long."""
MIN_TIMEOUTS = 2
"""Late once is no failure, unless nobody was left for it."""
MOMENT_S = 1.0
"""Without a word: less is between two tokens."""
SILENT_S, SILENT_TOKENS = 3.0, 4.0
"""Seconds, and times between tokens, without a word: longer is not slow."""
SLOW_RATHER_S = 2.0
"""A peer whose steps take so long by its own word is slow, not silent."""
BUSY_SHARE = 0.4
"""Of the time for the probe."""
OUT_OF_MEMORY = "out-of-memory"
NOT_FAILING = (PeerRefused, Outpaced, Forgot, Accused)
"""What speaks against no peer: no room, a standby that was faster, the way between two."""


def no_swarm(measured: Measured) -> Verdict | None:
    """Nobody could be joined."""
    error = measured.join_error
    if error is None:
        return None
    return Verdict(
        cause=Cause.DISCOVERY,
        evidence=escape(str(error), 400),
        remedy="check the addresses given with --join, this machine's network and its clock; "
        "the check of each bootstrap peer says what it answered",
    )


def blamed(measured: Measured) -> Verdict | None:
    """Whom the probe blamed; a timeout only when it came again, or nothing came after it."""
    errors = [error for error in measured.errors if not isinstance(error, NOT_FAILING)]
    counts = Counter(error.peer for error in errors)
    chain = measured.chain
    goes_on = measured.failure is None and chain is not None and chain.num_tokens > 0
    goes_on = goes_on and chain is not None and chain.waited_s < MOMENT_S
    for error in reversed(errors):
        if not isinstance(error, PeerTimeout):
            return _failed(measured, error)
        busy = _busy(measured)
        if busy is not None and busy.peer == error.peer:
            return _busy_all_the_time(measured, busy)
        if counts[error.peer] < MIN_TIMEOUTS and goes_on:
            continue
        return _failed(measured, error)
    return _silent(measured)


def _failed(measured: Measured, error: PeerError) -> Verdict:
    memory = "out of memory" in str(error).lower() or _told(measured, error.peer)[OUT_OF_MEMORY]
    what = f"{escape(str(error), 300)}{_also(measured, error.peer)}"
    if memory:
        return _out_of_memory(error.peer, what)
    return Verdict(
        cause=Cause.NODE_FAILING,
        peer=error.peer,
        evidence=what,
        remedy="restart that node and look at its log; until then let another one serve "
        f"{layers_of(measured.view, error.peer)}",
    )


def _silent(measured: Measured) -> Verdict | None:
    """The probe's time was over before one hop answered, and it is not known to be slow."""
    chain = measured.chain
    if chain is None or chain.awaited is None:
        return None
    if chain.waited_s < max(SILENT_S, SILENT_TOKENS * (chain.token_s or 0.0)):
        return None
    peer = chain.awaited
    known = measured.view.health.get(peer)
    announced = next((a for a in measured.view.announcements if a.peer == peer), None)
    if announced is not None and known is not None:
        told_s = step_s(announced, known.health, 1)
        if known.liveness is Liveness.ALIVE and told_s >= SLOW_RATHER_S:
            return Verdict(
                cause=Cause.SLOW_DEVICE,
                peer=peer,
                evidence=f"{name(peer)} takes {ms(told_s)} for a step, by its own word",
                remedy=slow.REMEDY_DEVICE,
            )
    return Verdict(
        cause=Cause.NODE_FAILING,
        peer=peer,
        evidence=f"{name(peer)} has not answered a step for {ms(chain.waited_s)}",
        remedy="restart that node and look at its log",
    )


def errors_told(measured: Measured) -> Verdict | None:
    """What the chain's peers tell of their own last minutes, against what all peers tell."""
    chain = measured.chain
    totals = {a.peer: _told(measured, a.peer).total() for a in measured.view.announcements}
    for hop in chain.hops if chain is not None else ():
        told = _told(measured, hop.peer)
        others = [total for peer, total in totals.items() if peer != hop.peer]
        usual = statistics.median(others) if others else 0.0
        if told[OUT_OF_MEMORY] >= MIN_OUT_OF_MEMORY:
            return _out_of_memory(hop.peer, f"{name(hop.peer)} {_list(told)}")
        if told.total() >= MIN_ERRORS and told.total() > ERROR_TIMES * usual:
            return Verdict(
                cause=Cause.NODE_FAILING,
                peer=hop.peer,
                evidence=f"{name(hop.peer)} {_list(told)}; its peers {usual:g} (median)",
                remedy="look at that node's log and device",
            )
    return None


def no_room(measured: Measured) -> Verdict | None:
    """No chain, since those who could be in it are full."""
    refused = [error for error in measured.errors if isinstance(error, PeerRefused)]
    failure = measured.failure
    is_full = failure is not None and "room" in str(failure)
    if failure is None or not (refused or is_full):
        return None
    error = refused[-1] if refused else failure
    return Verdict(
        cause=Cause.OVERLOADED,
        peer=refused[-1].peer if refused else None,
        evidence=f"no place for another session: {escape(str(error), 300)}",
        remedy="ask again in a while, or let another node serve the same layers",
    )


def uncovered(measured: Measured) -> Verdict | None:
    """No chain: a peer that is dead and still announced, or layers that nobody serves."""
    failure = measured.failure
    if failure is None:
        return None
    health = measured.view.health
    for a in measured.view.announcements:
        if a.peer in health and health[a.peer].liveness is not Liveness.ALIVE:
            return Verdict(
                cause=Cause.NODE_FAILING,
                peer=a.peer,
                evidence=f"{name(a.peer)}, layers {a.layers}, is announced and its neighbours "
                f"get no answer; {escape(str(failure), 200)}",
                remedy=f"start it again, or let another one serve layers {a.layers}",
            )
    return Verdict(
        cause=Cause.DISCOVERY,
        evidence=escape(str(failure), 400),
        remedy="start nodes for these layers: p2pnode serve --layers FIRST-LAST; if they run, "
        "see that they have joined the same swarm",
    )


def no_token(measured: Measured) -> Verdict | None:
    """Nothing failed, and yet nothing came: a hop computes all the time, or none has begun."""
    chain = measured.chain
    if chain is not None and chain.num_tokens:
        return None
    busy = _busy(measured)
    if busy is not None:
        return _busy_all_the_time(measured, busy)
    what = "no hop has opened a session" if chain is None else "no token came"
    is_read = measured.directory_s is not None
    within = f"{what} within {ms(measured.probed_s)}"
    return Verdict(
        cause=Cause.DISCOVERY,
        evidence=within if is_read else "the directory was not read in time",
        remedy="try again in a minute; p2pnode --debug doctor shows what is waited for",
    )


def apart(measured: Measured) -> Verdict | None:
    """One hop could not reach the next: the way between two, or one of them."""
    for error in measured.errors:
        if isinstance(error, Accused):
            return Verdict(
                cause=Cause.NETWORK,
                peer=error.peer,
                evidence=f"{name(error.reporter)} does not reach {name(error.peer)}: "
                f"{escape(str(error), 300)}",
                remedy="let one of the two be dialled (an open port, --announce), or look at the "
                "line between them; until then clients carry these steps",
            )
    return None


# --- one that is busy all the time


def _busy(measured: Measured) -> HopMeasured | None:
    """The hop that has computed for most of the time, where that is `BUSY_SHARE` of it."""
    hops = measured.chain.hops if measured.chain is not None else ()
    busiest = max(hops, key=lambda hop: hop.prompt_s, default=None)
    is_busy = busiest is not None and busiest.prompt_s > BUSY_SHARE * measured.probed_s > 0
    return busiest if is_busy else None


def _busy_all_the_time(measured: Measured, hop: HopMeasured) -> Verdict:
    num_tokens = measured.chain.num_tokens if measured.chain is not None else 0
    return Verdict(
        cause=Cause.SLOW_DEVICE,
        peer=hop.peer,
        evidence=f"{name(hop.peer)} has worked for {ms(hop.prompt_s)} of {ms(measured.probed_s)} "
        f"on one prompt, and {num_tokens} tokens came",
        remedy=slow.REMEDY_DEVICE,
    )


# --- words


def _out_of_memory(peer: PeerId, evidence: str) -> Verdict:
    return Verdict(
        cause=Cause.MEMORY_PRESSURE,
        peer=peer,
        evidence=evidence,
        remedy="let that node serve fewer layers or sessions (--layers, --max-sessions, --vram), "
        "or end what else uses its memory",
    )


def _told(measured: Measured, peer: PeerId) -> Counter[str]:
    known = measured.view.health.get(peer)
    return Counter(dict(known.health.errors)) if known is not None else Counter()


def _also(measured: Measured, peer: PeerId) -> str:
    told = _told(measured, peer)
    return f"; it {_list(told)}" if told else ""


def _list(told: Counter[str]) -> str:
    kinds = ", ".join(f"{count} x {escape(kind, 24)}" for kind, count in told.most_common())
    return f"tells of {kinds} in its last minutes"
