"""`hetero_p99` of `p2pnode bench throughput`: a crowd of sessions on peers of mixed speed.

Everything is real but the time of a forward and the network (`lab.mixed`): virtual time, so the
row does not depend on what else this machine does. Capacity is what the same peers do for the same
kind of sessions when there are always many (a session that ends is followed by another one).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median

from p2pnode.bench.parts import Setup, most
from p2pnode.bench.resilience_rows import with_remark
from p2pnode.bench.resilience_simulated import in_thread
from p2pnode.bench.result import Row, figure
from p2pnode.lab.mixed import Crowd, capacity, requests, run_crowd

LOAD = 0.7
MOST = 3.0
AT_ONCE = 48
QUICK_AT_ONCE = 24
SESSIONS = 60
QUICK_SESSIONS = 24
ROUNDS = 3


async def hetero(setup: Setup) -> list[Row]:
    """The row, and the two times that it is the ratio of."""
    at_once = setup.few(AT_ONCE, QUICK_AT_ONCE)
    setup.note(f"peers of mixed speed, saturated: {at_once} sessions at a time")
    most_per_s = await in_thread(capacity, 2 * at_once, at_once, setup.folder)
    crowds: list[Crowd] = []
    halves_s, tails_s = list[float](), list[float]()
    for seed in range(1, setup.few(ROUNDS, 1) + 1):
        setup.note(f"peers of mixed speed: crowd {seed}")
        number = setup.few(SESSIONS, QUICK_SESSIONS)
        wanted = requests(number, seed=seed, tokens_per_s=LOAD * most_per_s)
        crowd = await in_thread(run_crowd, wanted, setup.folder)
        waits_s = crowd.waits_s(wanted)
        halves_s.append(median(waits_s))
        tails_s.append(waits_s[int(0.99 * len(waits_s))])
        crowds.append(crowd)
    ratios = [tail_s / half_s for tail_s, half_s in zip(tails_s, halves_s, strict=True)]
    row = most(MOST).row("hetero_p99", ratios, "p99 / p50 of token time")
    return [
        with_remark(row, f"virtual time; {_load(most_per_s, crowds)}; {_slowest(crowds)}"),
        figure("hetero_p50_ms", [1e3 * each for each in halves_s], "ms"),
        figure("hetero_p99_ms", [1e3 * each for each in tails_s], "ms"),
    ]


def _load(most_per_s: float, crowds: Sequence[Crowd]) -> str:
    busy = mean(crowd.busy() for crowd in crowds)
    failovers = sum(crowd.failovers for crowd in crowds)
    load = f"{LOAD:.0%} of {most_per_s:.0f} tokens/s asked for, busiest range computes {busy:.0%}"
    return f"{load} of the time, {failovers} failovers"


def _slowest(crowds: Sequence[Crowd]) -> str:
    """The range whose hops add most to a token's time."""
    steps = [crowd.per_step_s() for crowd in crowds]
    times_s = {
        layers: (mean(step[layers][0] for step in steps), mean(step[layers][1] for step in steps))
        for layers in steps[0]
    }
    layers = max(times_s, key=lambda each: sum(times_s[each]))
    waiting_s, computing_s = times_s[layers]
    spent = f"waits {1e3 * waiting_s:.0f} ms and computes {1e3 * computing_s:.0f} ms"
    return f"slowest range {layers}: a step there {spent}"
