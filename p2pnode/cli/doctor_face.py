"""What `p2pnode doctor` runs and shows; imported by its command only, since it needs torch."""

from __future__ import annotations

import functools
from dataclasses import asdict
from typing import Any

from p2pnode.cli.output import Output
from p2pnode.config import ClientConfig, SwarmConfig
from p2pnode.doctor.doctor import Asked, examine
from p2pnode.doctor.here import look
from p2pnode.doctor.measured import ChainMeasured, HopMeasured
from p2pnode.doctor.report import Cause, Check, Grade, PeerTold, Report
from p2pnode.log import escape
from p2pnode.swarm.membership import enter
from p2pnode.swarm.p2p_network import client_network
from p2pnode.swarm.sources import sources

HOP_COLUMNS = ("HOP", "LAYERS", "CONNECT", "RTT", "LOST", "WAITS", "COMPUTES", "WAY", "BYTES")
PEER_COLUMNS = ("PEER", "LAYERS", "IS", "SESSIONS", "LOAD", "MEMORY", "ERRORS IN ITS LAST MINUTES")
MEANING = """\
Times in ms. Computes, waits (for the device): per token; way: one way from the hop before; bytes:
how much longer the prompt's rows took on that way than a token's.
"""
MARKS = {Grade.OK: "ok", Grade.WARNING: "warning", Grade.BAD: "BAD"}
NONE = "-"


async def examine_here(swarm: SwarmConfig, model: str | None, rtt_limit_s: float) -> Report:
    """Examine this machine and the swarm that it is to join."""
    config = ClientConfig(swarm=swarm, cache=swarm.home.cache)
    now = config.wall_clock()
    membership = enter(swarm.home, swarm.invite, now=now) if swarm.invite else None
    asked = Asked(
        look=functools.partial(look, swarm.home, model),
        candidates=sources(swarm, membership).candidates,
        model=model,
        rtt_limit_s=rtt_limit_s,
        wall_clock=config.wall_clock,
    )
    return await examine(client_network(config), asked)


def show(report: Report, output: Output) -> None:
    """The verdict, and what it was made from."""
    output.result(report_fields(report))
    for check in report.checks:
        output.say(_check_line(check))
    if report.chain is not None:
        output.say("")
        output.table(HOP_COLUMNS, [_hop_row(hop) for hop in report.chain.hops])
        output.say(MEANING)
    if report.peers:
        output.table(PEER_COLUMNS, [_peer_row(peer) for peer in report.peers])
        output.say("")
    output.say(sentence(report))


def sentence(report: Report) -> str:
    """The cause, why, and what to do."""
    verdict = report.verdict
    if verdict.cause is Cause.NONE:
        return f"Nothing is in the way: {verdict.evidence}."
    return f"{verdict.cause}: {verdict.evidence}. Remedy: {verdict.remedy}."


def report_fields(report: Report) -> dict[str, Any]:
    """All of it, for scripts; times in seconds."""
    verdict = report.verdict
    return {
        "cause": verdict.cause.value,
        "peer": verdict.peer,
        "evidence": verdict.evidence,
        "remedy": verdict.remedy,
        "doctor_s": report.took_s,
        "checks": [asdict(check) for check in report.checks],
        "chain": None if report.chain is None else _chain_fields(report.chain),
        "peers": [_peer_fields(peer) for peer in report.peers],
    }


def _chain_fields(chain: ChainMeasured) -> dict[str, Any]:
    return {
        "ttft_s": chain.ttft_s,
        "token_s": chain.token_s,
        "num_tokens": chain.num_tokens,
        "hops": [_hop_fields(hop) for hop in chain.hops],
    }


def _hop_fields(hop: HopMeasured) -> dict[str, Any]:
    return {
        "peer": hop.peer,
        "layers": str(hop.layers),
        "connect_s": hop.connect_s,
        "rtt_s": hop.ways.median_s,
        "num_pings": hop.ways.num_sent,
        "num_lost": hop.ways.num_lost,
        "queue_s": hop.queue_s,
        "compute_s": hop.compute_s,
        "way_s": hop.way_s,
        "transfer_s": hop.transfer_s,
        "is_carried": hop.is_carried,
    }


def _peer_fields(peer: PeerTold) -> dict[str, Any]:
    return {**asdict(peer), "layers": str(peer.layers), "errors": dict(peer.errors)}


def _check_line(check: Check) -> str:
    remedy = f"; {check.remedy}" if check.remedy else ""
    return f"{MARKS[check.grade]:8}{check.name:16}{check.evidence}{remedy}"


def _hop_row(hop: HopMeasured) -> tuple[str, ...]:
    lost = f"{hop.ways.num_lost} of {hop.ways.num_sent}"
    return (
        hop.peer.short,
        f"{hop.layers}{' (carried)' if hop.is_carried else ''}",
        _ms(hop.connect_s),
        _ms(hop.ways.median_s),
        lost,
        _ms(hop.queue_s),
        _ms(hop.compute_s),
        _ms(hop.way_s),
        _ms(hop.transfer_s),
    )


def _peer_row(peer: PeerTold) -> tuple[str, ...]:
    errors = ", ".join(f"{escape(kind, 24)} {count}" for kind, count in peer.errors)
    return (
        peer.peer.short,
        str(peer.layers),
        peer.liveness,
        str(peer.num_sessions),
        f"{peer.device_load:.0%}",
        f"{peer.vram_used:.0%}",
        errors or NONE,
    )


def _ms(seconds: float | None) -> str:
    return NONE if seconds is None else f"{seconds * 1e3:.1f}"
