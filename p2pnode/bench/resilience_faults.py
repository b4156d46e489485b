"""Rows of `p2pnode bench resilience` about single faults: is the text the same, how long it stood.

Sweeps are recorded by `p2pnode lab sweep`; the last complete ones are shown with commit and age.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from statistics import median

from p2pnode.bench.resilience_rows import (
    Setup,
    at_most_because,
    detection_limit_ms,
    goal_row,
    is_right,
    silence_limit_ms,
    standby_limit_ms,
    with_remark,
)
from p2pnode.bench.result import Row, at_most, figure
from p2pnode.lab.backends import choose_lab
from p2pnode.lab.record import latest_record
from p2pnode.lab.result import Trial
from p2pnode.lab.scenario import FaultKind, Scenario
from p2pnode.lab.sweep import QUICK_TRIALS, Backend, Sweep, plan

OTHERS = tuple(kind for kind in FaultKind if kind is not FaultKind.KILL)
WANTED = ((FaultKind.KILL, True, 192), (FaultKind.KILL, False, 48))
WANTED_OF_OTHERS = 24
QUICK_TOKENS = 32
STALL_TRIALS = 9
REAL_IN_QUICK = (FaultKind.KILL, FaultKind.STALL, FaultKind.DROP)
TRIALS_S = 120.0
QUICK_TRIALS_S = 40.0
"""For the trials of one kind; on a busy machine there are fewer."""
SLOW_TOKENS = 112
SLOW_TRIALS = 6
NUM_HOPS = 3
HOUR_S = 3600.0


async def identical(setup: Setup) -> list[Row]:
    """`kill_identical`: recorded sweeps, or a few trials of every kind now."""
    return await _tried_now(setup) if setup.is_quick else _recorded(setup)


def _recorded(setup: Setup) -> list[Row]:
    wanted = [*WANTED, *((kind, True, WANTED_OF_OTHERS) for kind in OTHERS)]
    rows = [_recorded_row(setup, *each) for each in wanted]
    value = sum(row.value or 0.0 for row in rows)
    total = sum(num for _, _, num in wanted)
    lacking = [row.metric.removeprefix("identical_") for row in rows if not row.met]
    sweeps = figure("kill_identical", [value], "identical trials")
    row = goal_row(sweeps, met=not lacking, goal=f"{total} of {total}, every kind in full")
    remark = f"lacking: {', '.join(lacking)}" if lacking else "every kind in full"
    return [with_remark(row, remark), *rows]


def _recorded_row(setup: Setup, kind: FaultKind, standby: bool, wanted: int) -> Row:
    """Of one kind; the newest sweep of at least so many trials on real processes."""
    name = f"identical_{kind}{'' if standby else '_alone'}".replace("-", "_")
    goal = f"{wanted} of {wanted}, real processes"
    found = latest_record(setup.records, transport="namespaces", fault=kind.value, standby=standby)
    if found is None:
        row = figure(name, [0.0], "identical trials")
        command = f"p2pnode lab sweep --fault {kind}{'' if standby else ' --no-standby'}"
        return with_remark(goal_row(row, met=False, goal=goal), f"not recorded; run {command}")
    file, head, trials = found
    num_right = sum(map(is_right, trials))
    age_h = (time.time() - file.stat().st_mtime) / HOUR_S
    row = figure(name, [float(num_right)], "identical trials")
    is_met = num_right == len(trials) and len(trials) >= wanted
    remark = f"of {len(trials)}, commit {head.get('commit', 'unknown')}, {age_h:.1f} h ago"
    return with_remark(goal_row(row, met=is_met, goal=goal), remark)


async def _tried_now(setup: Setup) -> list[Row]:
    """Twelve trials of each kind in memory; those of real processes are in the stalls' rows."""
    rows, right, total = [], 0, 0
    for kind in FaultKind:
        trials = await _trials(setup, "memory", _planned(setup, kind, QUICK_TRIALS))
        num_right = sum(map(is_right, trials))
        right, total = right + num_right, total + len(trials)
        row = figure(f"identical_{kind}".replace("-", "_"), [float(num_right)], "identical trials")
        goal = f"{len(trials)} of {len(trials)}, in memory"
        rows.append(goal_row(row, met=num_right == len(trials), goal=goal))
    row = figure("kill_identical", [float(right)], "identical trials")
    row = goal_row(row, met=right == total, goal=f"{total} of {total}, in memory")
    return [row, *rows]


async def stalls(setup: Setup) -> list[Row]:
    """`kill_stall_standby_ms`, `stall_stall_standby_ms`, `drop_stall_standby_ms`, measured now."""
    rows: list[Row] = []
    num_trials = QUICK_TRIALS if setup.is_quick else STALL_TRIALS
    async with choose_lab(setup.transport, setup.cache, setup.commit).lab as backend:
        for kind in REAL_IN_QUICK:
            scenarios = _planned(setup, kind, num_trials)
            rows += _stall_rows(setup, kind, await _run(setup, setup.transport, backend, scenarios))
    return rows


def _stall_rows(setup: Setup, kind: FaultKind, trials: Sequence[Trial]) -> list[Row]:
    ended = [trial for trial in trials if not (trial.failed or trial.hung)]
    found = [trial.detection_ms for trial in ended if trial.detection_ms is not None]
    loop_ms = median(trial.loop_ms for trial in ended)
    is_kill = kind is FaultKind.KILL
    limit = standby_limit_ms(loop_ms) if is_kill else silence_limit_ms(loop_ms)
    row = at_most_because(
        f"{kind}_stall_standby_ms", [trial.stall_ms for trial in ended], "ms", *limit
    )
    num_right = sum(map(is_right, trials))
    row = with_remark(row, f"{num_right} of {len(trials)} identical, {setup.transport}")
    rows = [row]
    if found and not is_kill:
        limit_ms = detection_limit_ms(loop_ms)
        rows.append(at_most(f"{kind}_detection_ms", found, "ms", limit_ms, loop_ms))
    return rows


async def slow(setup: Setup) -> list[Row]:
    """`slow_recovery_steps`: after how many tokens the pace was what it had been."""
    whole = plan(Sweep(fault=FaultKind.SLOW, tokens=SLOW_TOKENS), setup.cache)
    first, last = SLOW_TOKENS // 2 - 12, SLOW_TOKENS // 2 + 12
    fitting = [each for each in whole if first <= each.faults[0].at.token < last]
    num_trials = SLOW_TRIALS // 2 if setup.is_quick else SLOW_TRIALS
    step = len(fitting) // num_trials
    # Planned hop after hop: a step that is a multiple of their number would try one hop only.
    scenarios = [fitting[index * step + index % NUM_HOPS] for index in range(num_trials)]
    trials = await _trials(setup, setup.transport, scenarios)
    where = setup.transport
    if all(trial.recovery_steps is None for trial in trials):
        trials, where = await _trials(setup, "memory", scenarios), "memory"
    # Who never recovers is worse than any step that there is.
    steps = [float(SLOW_TOKENS if t.recovery_steps is None else t.recovery_steps) for t in trials]
    row = at_most("slow_recovery_steps", steps, "tokens", 3.0)
    right = sum(map(is_right, trials))
    return [with_remark(row, f"{right} of {len(trials)} identical, {where}")]


def _planned(setup: Setup, kind: FaultKind, num_trials: int) -> list[Scenario]:
    tokens = QUICK_TOKENS if setup.is_quick else 64
    return plan(Sweep(fault=kind, tokens=tokens, trials=num_trials), setup.cache)


async def _trials(setup: Setup, transport: str, scenarios: Sequence[Scenario]) -> list[Trial]:
    """Run them in a lab of their own."""
    async with choose_lab(transport, setup.cache, setup.commit).lab as backend:
        return await _run(setup, transport, backend, scenarios)


async def _run(
    setup: Setup, transport: str, backend: Backend, scenarios: Sequence[Scenario]
) -> list[Trial]:
    """Run them, one after the other, as many as there is time for."""
    clock, trials = asyncio.get_running_loop().time, list[Trial]()
    ends = clock() + (QUICK_TRIALS_S if setup.is_quick else TRIALS_S)
    for number, scenario in enumerate(scenarios, start=1):
        if trials and clock() > ends:
            setup.note(f"no time for more than {len(trials)} of {len(scenarios)}")
            break
        trial = await backend(scenario)
        trials.append(trial)
        what = "right" if is_right(trial) else f"NOT right: {trial.error or 'other tokens'}"
        count = f"{transport} {number}/{len(scenarios)}"
        setup.note(f"{count} {scenario.name}: {what}, stall {trial.stall_ms:.0f} ms")
    return trials
