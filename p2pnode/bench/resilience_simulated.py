"""Rows of `p2pnode bench resilience` that are simulations of the real code, in this process."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from statistics import mean, median
from typing import TypeVar

from p2pnode.bench.resilience_rows import Setup, goal_row, with_remark
from p2pnode.bench.result import Row, at_least, at_most, figure
from p2pnode.dht.records import TTL_S
from p2pnode.gossip.core import PERIOD_S
from p2pnode.lab import scale
from p2pnode.lab.crowd import balance
from p2pnode.lab.dead import announced_for
from p2pnode.lab.flood import run_flood
from p2pnode.lab.jitter import run_jitter
from p2pnode.lab.regions import cluster
from p2pnode.lab.sybil import Aim, run_attack

JITTER = 0.5
JITTER_MINUTES = 10.0
QUICK_JITTER_MINUTES = 1.0
MOST_HEDGES = 0.05
LOOKUPS = 60
QUICK_LOOKUPS = 10
QUICK_SHARE = 5
"""With ``--quick`` the large simulations have so many times fewer nodes."""

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *args: object, **options: object) -> T:
    """Run what blocks, or needs a loop of its own; cancelling waits for it."""
    work = functools.partial(function, *args, **options)
    running = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


async def flood(setup: Setup) -> list[Row]:
    """`gossip_flood`, and how long honest health took meanwhile."""
    found = await in_thread(run_flood)
    periods = found.seen_after_s / found.period_s
    share = at_most("gossip_flood", list(found.shares.values()), "of a core", 0.3)
    return [
        with_remark(share, "by digests per message; the flooder's own time included"),
        at_most("gossip_flood_seen", [periods], "gossip periods", 2.0),
    ]


async def regions(setup: Setup) -> list[Row]:
    """`cluster` and `balance`."""
    near = await in_thread(cluster, worlds=4 if setup.is_quick else 20)
    even = await in_thread(balance, worlds=2 if setup.is_quick else 6)
    spread = f"worst {near['ratio_worst']:.3g}, mean {near['ratio_mean']:.3g}"
    ring = f"worst {near['ratio_ring_worst']:.3g}, mean {near['ratio_ring_mean']:.3g}"
    return [
        with_remark(at_most("cluster", [near["ratio"]], "of the best loop", 1.1), spread),
        with_remark(figure("cluster_ring", [near["ratio_ring"]], "of the best ring"), ring),
        figure("cluster_prediction_error", [near["error_median"]], "relative"),
        with_remark(
            at_most("balance", [even["ratio"]], "busiest / mean", 1.5),
            f"worst {even['ratio_worst']:.3g}",
        ),
    ]


async def choice(setup: Setup) -> list[Row]:
    """`scale_choice_ms`: always with all nodes."""
    found = await in_thread(scale.choice, setup.num_nodes)
    least, most = found["choice_least_ms"], found["choice_most_ms"]
    row = at_most("scale_choice_ms", [found["choice_ms"]], "ms", 50.0)
    remark = f"{least:.3g} to {most:.3g}; decode {found['choice_decode_ms']:.3g} and choose "
    remark += f"{found['choice_choose_ms']:.3g}, signatures not checked"
    return [
        goal_row(with_remark(row, remark), met=bool(row.met), goal="<= 50"),
        figure("scale_choice_renewed_ms", [found["choice_renewed_ms"]], "ms, a quarter checked"),
        figure("scale_choice_cold_ms", [found["choice_cold_ms"]], "ms, all checked"),
    ]


async def large(setup: Setup) -> list[Row]:
    """What lookups and gossip cost in a large swarm; stated, without a goal but gossip's."""
    num_nodes = setup.num_nodes // (QUICK_SHARE if setup.is_quick else 1)
    size = f"{num_nodes} nodes"
    found = await in_thread(scale.lookup, num_nodes)
    rows = [
        with_remark(figure(f"scale_{name}", [found[name]], unit), size)
        for name, unit in (
            ("lookup_messages", "messages"),
            ("lookup_rounds", "round trips"),
            ("lookup_bytes", "bytes"),
            ("publish_messages", "messages"),
            ("publish_bytes", "bytes"),
        )
    ]
    told = await in_thread(scale.gossip, num_nodes)
    each = at_most("scale_gossip_bytes", [told["gossip_bytes_per_node_s"]], "B/s and node", 8000.0)
    count = figure("scale_gossip_messages", [told["gossip_messages_per_node_s"]], "per s and node")
    return [*rows, with_remark(each, size), with_remark(count, size)]


async def sybils(setup: Setup) -> list[Row]:
    """`sybil_lookup`: for Sybils anywhere, and for those that have chosen their places."""
    rows = []
    lookups = QUICK_LOOKUPS if setup.is_quick else LOOKUPS
    num_nodes = min(200, setup.num_nodes)
    for aim in Aim:
        setup.note(f"{num_nodes} nodes, 40 % of them Sybils: {aim}")
        found = await in_thread(run_attack, aim=aim, lookups=lookups, num_nodes=num_nodes)
        name = "sybil_lookup" if aim is Aim.ANYWHERE else f"sybil_lookup_{aim.replace('-', '_')}"
        row = at_least(name, [found.whole / found.lookups], "of lookups", 0.99)
        remark = f"{mean(found.shares):.4g} of the honest announcements, {found.forged} forged, "
        remark += f"{median(found.calls):.0f} calls per lookup"
        rows.append(with_remark(row, remark))
    return rows


async def dead(setup: Setup) -> list[Row]:
    """`dead_announcement`: how often a dead peer is used again, and how long it is announced."""
    found = await in_thread(announced_for, setup.cache)
    limit_s = TTL_S + 2.0 * PERIOD_S
    used = at_most("dead_announcement_used", [float(found.used_again)], "of later sessions", 0.0)
    gone = at_most("dead_announcement", [found.gone_after_s], "s until it is gone", limit_s)
    is_met = bool(gone.met) and bool(used.met)
    goal = f"<= {limit_s:g} (expiry {TTL_S:g} + 2 periods of {PERIOD_S:g}), not used again"
    return [
        with_remark(goal_row(gone, met=is_met, goal=goal), "virtual time"),
        with_remark(used, f"{found.sessions} sessions while it was announced"),
    ]


async def jitter(setup: Setup) -> list[Row]:
    """`jitter_50`: generations for minutes of virtual time."""
    minutes = QUICK_JITTER_MINUTES if setup.is_quick else JITTER_MINUTES
    found = await in_thread(run_jitter, JITTER, setup.cache, minutes=minutes)
    wrong = found.requests - found.right
    row = at_most("jitter_50", [float(wrong)], "of the texts are not right", 0.0)
    is_met = bool(row.met) and not found.false_alarms and not found.failed and found.requests > 0
    remark = f"{found.requests} texts, {found.tokens} tokens in {minutes:g} virtual minutes, "
    remark += f"{found.false_alarms} false alarms, {found.failovers} failovers"
    goal = "0 wrong, no false alarm, hedges <= 5 %"
    share = found.hedges / max(1, found.tokens)
    is_met = is_met and share <= MOST_HEDGES
    remark += f", {100 * share:.2f} % hedges"
    return [with_remark(goal_row(row, met=is_met, goal=goal), remark)]
