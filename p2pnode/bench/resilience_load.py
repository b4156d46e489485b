"""Rows of `p2pnode bench resilience` about whole sessions: leaving, no standby, cost, the soak."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

from p2pnode.bench.resilience_rows import (
    Setup,
    at_most_because,
    goal_row,
    not_measured,
    with_remark,
)
from p2pnode.bench.resilience_sessions import Session, Turn, sessions
from p2pnode.bench.result import Row, at_least, at_most, figure
from p2pnode.config import ClientConfig
from p2pnode.lab.presets import Link
from p2pnode.lab.scenario import Node, Request, Scenario
from p2pnode.lab.timing import pace
from p2pnode.types import LayerRange

NUM_HOPS = 3
DELAY_MS = 20.0
COMPUTE_MS = 5.0
"""Of a step, in memory."""
LEAVE_TOKENS = 32
LEAVES = 6
LONG_PROMPT = 1024
SHORT_PROMPT = 16
ALONE_TOKENS = 16
ALONE_ROUNDS = 3
COST_TOKENS = 96
COST_ROUNDS = 5
SOAK_MINUTES = 3.0
QUICK_SOAK_MINUTES = 1.0


async def leave(setup: Setup) -> list[Row]:
    """`leave_stall`: a hop is asked to leave in mid-session."""
    done: list[Session] = []
    async with sessions(setup) as run:
        for number in range(NUM_HOPS if setup.is_quick else LEAVES):
            turn = Turn(deed="leave", token=8 + number, hop=number % NUM_HOPS)
            done.append(await run(_scenario(setup, max_tokens=LEAVE_TOKENS), turn))
            setup.note(f"leave {number + 1}: {done[-1].error or 'finished'}")
    failed = sum(not session.is_right for session in done)
    paces = [pace(each.token_times_s, each.deed_at_s) for each in done if each.is_right]
    ratios = [each.stall_ms / each.loop_ms for each in paces]
    row = figure("leave_stall", ratios, "median token times")
    is_met = row.value is not None and row.value < 2.0 and not failed
    row = goal_row(row, met=is_met, goal="< 2, 0 failed sessions")
    return [with_remark(row, f"{failed} of {len(done)} sessions failed, {setup.transport}")]


async def alone(setup: Setup) -> list[Row]:
    """`kill_stall_alone_ms`: no standby, a long prompt has to be prefilled again."""
    killed: list[Session] = []
    prefills: list[float] = []
    short = _scenario(setup, prompt_tokens=SHORT_PROMPT, max_tokens=ALONE_TOKENS, standby=False)
    long = _scenario(setup, prompt_tokens=LONG_PROMPT, max_tokens=ALONE_TOKENS, standby=False)
    quiet = Turn(standby=False)
    async with sessions(setup) as run:
        for number in range(1 if setup.is_quick else ALONE_ROUNDS):
            prefills.append((await run(long, quiet)).ttft_s - (await run(short, quiet)).ttft_s)
            for hop in range(NUM_HOPS):
                setup.note(f"without a standby: round {number + 1}, hop {hop}")
                turn = Turn(deed="kill", token=6 + number, hop=hop, standby=False)
                killed.append(await run(long, turn))
    right = [each for each in killed if each.is_right]
    stalls = [pace(each.token_times_s, each.deed_at_s).stall_ms for each in right]
    found_ms = median([1e3 * each.detection_s for each in right if each.detection_s is not None])
    peer_ms = 1e3 * median(prefills) * _share_of_one_hop()
    limit_ms = found_ms + 4 * 2 * DELAY_MS + 1.3 * peer_ms
    because = f"detection {found_ms:.0f} + 4 RTT of {2 * DELAY_MS:g} + 1.3 x {peer_ms:.0f} ms"
    row = at_most_because("kill_stall_alone_ms", stalls, "ms", limit_ms, because)
    remark = f"{len(right)} of {len(killed)} right, {setup.transport}"
    return [with_remark(row, remark)]


def _share_of_one_hop() -> float:
    """Of the time in which a prompt in chunks passes all hops, the part that one hop needs.

    The first chunk reaches the last hop when the first hop has done as many as there are hops.
    """
    chunks = LONG_PROMPT / ClientConfig().prefill_chunk_tokens
    return chunks / (chunks + NUM_HOPS - 1)


async def cost(setup: Setup) -> list[Row]:
    """`standby_cost`: tokens per second with standbys and without, nothing failing."""
    ratios: list[float] = []
    base: list[float] = []
    scenario = _scenario(setup, max_tokens=COST_TOKENS)
    if setup.transport == "memory":
        why = "in memory computing takes no time; real processes need network namespaces"
        return [not_measured("standby_cost", why)]
    async with sessions(setup) as run:
        await run(scenario, Turn())
        for number in range(3 if setup.is_quick else COST_ROUNDS):
            setup.note(f"with and without standbys: round {number + 1}")
            rates = {}
            for standby in (True, False) if number % 2 else (False, True):
                rates[standby] = (await run(scenario, Turn(standby=standby))).tokens_per_s
            base.append(rates[False])
            ratios.append(rates[True] / rates[False])
    return [at_least("standby_cost", ratios, "of the tokens/s without", 0.97, median(base))]


async def soak(setup: Setup) -> list[Row]:
    """`soak`, the short cut: nodes die and join under load."""
    if setup.transport == "memory":
        return [not_measured("soak", "real processes need network namespaces")]
    from p2pnode.lab.wan import soak as wan_soak  # Linux only

    minutes = QUICK_SOAK_MINUTES if setup.is_quick else SOAK_MINUTES
    found = await wan_soak.run(minutes, setup.cache, setup.note)
    bad = found.wrong + found.failed + found.hung
    row = at_most("soak", [float(bad)], "requests wrong, failed or hung", 0.0)
    is_met = bool(row.met) and found.requests > 0 and not found.leaked
    row = goal_row(row, met=is_met, goal=f"0 in {minutes:g} minutes, 0 leaked")
    remark = f"{found.right} of {found.requests} right, {found.wrong} wrong, {found.failed} failed,"
    remark += f" {found.hung} hung; {found.kills} kills, {found.failovers} failovers,"
    remark += f" {found.leaked} leaked"
    slope = figure("soak_rss_slope", [found.rss_slope_mb_per_min], "MB/min")
    return [with_remark(row, remark), with_remark(slope, f"{found.slopes} processes")]


def _scenario(
    setup: Setup, *, prompt_tokens: int = SHORT_PROMPT, max_tokens: int, standby: bool = True
) -> Scenario:
    """Three hops, two nodes for each, 20 ms between any two; real nodes take what they take."""
    compute_ms = COMPUTE_MS if setup.transport == "memory" else 0.0
    nodes = tuple(
        Node(
            name=f"hop-{hop}",
            layers=LayerRange(3 * hop, 3 * hop + 3),
            count=2,
            compute_ms=compute_ms,
        )
        for hop in range(NUM_HOPS)
    )
    request = Request(prompt_tokens=prompt_tokens, max_tokens=max_tokens)
    link = Link(delay_ms=DELAY_MS)
    scenario = Scenario(name="sessions", nodes=nodes, client=request, link=link)
    return replace(scenario, standby=standby)
