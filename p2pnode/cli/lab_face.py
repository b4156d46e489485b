"""What `p2pnode lab` runs and shows; imported by its commands only, since it needs torch."""

from __future__ import annotations

import dataclasses
import logging
from contextlib import aclosing
from pathlib import Path
from typing import Any

import typer

import p2pnode
from p2pnode.cli.exits import FAILED
from p2pnode.cli.output import Output
from p2pnode.cli.run import run_async
from p2pnode.config import Home
from p2pnode.errors import BadRequest
from p2pnode.lab import scale
from p2pnode.lab.backends import Chosen, choose_lab
from p2pnode.lab.record import Record, current_commit, open_record
from p2pnode.lab.result import Summary, Trial
from p2pnode.lab.scenario import FaultKind, Scenario
from p2pnode.lab.scenario_file import load_scenario
from p2pnode.lab.sweep import QUICK_TRIALS, Sweep, plan, run_sweep
from p2pnode.log import escape


def show_run(file: Path, transport: str, home: Home, output: Output) -> None:
    """Run a scenario file and show its trial; exit status 1 when the text is not right."""
    scenario = load_scenario(file)
    chosen = choose_lab(transport, home.cache, _prepared())
    output.note(f"{scenario.name}: {chosen.reason}")
    trial = run_async(_run(chosen, scenario))
    output.result(dataclasses.asdict(trial))
    output.say(f"{escape(trial.scenario)}: {_verdict(trial)} ({chosen.reason})")
    output.say(_figures(trial))
    if not _is_right(trial):
        raise typer.Exit(FAILED)


def sweep_of(fault: str, *, trials: int | None, is_quick: bool, **settings: Any) -> Sweep:
    """The settings of a sweep; raises BadRequest."""
    if fault not in tuple(FaultKind):
        raise BadRequest(f"{escape(fault, 40)!r} is no fault; write one of {', '.join(FaultKind)}")
    if is_quick and trials is None:
        trials = QUICK_TRIALS
    return Sweep(fault=FaultKind(fault), trials=trials, **settings)


def show_sweep(sweep: Sweep, transport: str, home: Home, output: Output) -> None:
    """Run a sweep and show trials as they end, then their sum; exit status 1 unless all is well."""
    commit = _prepared()
    chosen = choose_lab(transport, home.cache, commit)
    scenarios = plan(sweep, home.cache)
    record = open_record(home.folder / "lab", chosen.transport, commit, dataclasses.asdict(sweep))
    output.note(f"{len(scenarios)} trials, {len(record.trials)} of them done: {chosen.reason}")
    trials = run_async(_sweep(chosen, scenarios, record, output))
    summary = dataclasses.asdict(Summary.of(trials))
    how = {"fault": sweep.fault.value, "transport": chosen.transport, "commit": commit}
    output.event("summary", **how, **summary)
    output.say(f"{sweep.fault}, {chosen.reason}, commit {commit}")
    output.table(
        ("TRIALS", "IDENTICAL", "FAILED", "HUNG", "STALL P50", "P95", "MAX", "LOOP", "DETECTION"),
        [_row(summary)],
    )
    if not all(map(_is_right, trials)):
        raise typer.Exit(FAILED)


def show_soak(minutes: float, home: Home, output: Output) -> None:
    """Run a soak and show its figures."""
    from p2pnode.lab.wan import soak  # Linux only

    _prepared()
    record = home.folder / "lab" / "soak.jsonl"
    commit = current_commit(Path(__file__).parent)
    running = soak.run(minutes, home.cache, output.note, record=record, commit=commit)
    result = run_async(running)
    figures = dataclasses.asdict(result)
    output.event("summary", transport="namespaces", **figures)
    output.table(("FIGURE", "VALUE"), [(name, str(value)) for name, value in figures.items()])
    if result.wrong or result.failed or result.hung or result.leaked:
        raise typer.Exit(FAILED)


def show_scale(num_nodes: int, seed: int, output: Output) -> None:
    """Simulate a large swarm and show what it costs."""
    figures = run_async(scale.run(num_nodes, seed, output.note))
    output.event("summary", **figures)
    output.table(("FIGURE", "VALUE"), [(name, str(value)) for name, value in figures.items()])


async def _run(chosen: Chosen, scenario: Scenario) -> Trial:
    async with chosen.lab as backend:
        return await backend(scenario)


async def _sweep(
    chosen: Chosen, scenarios: list[Scenario], record: Record, output: Output
) -> list[Trial]:
    trials: list[Trial] = []
    async with (
        chosen.lab as backend,
        aclosing(run_sweep(scenarios, backend, record)) as ended,
    ):
        async for trial, is_new in ended:
            trials.append(trial)
            if is_new:
                output.event("trial", **dataclasses.asdict(trial))
                output.note(f"{len(trials)}/{len(scenarios)} {trial.scenario}: {_verdict(trial)}")
            if is_new and not _is_right(trial):
                output.say(f"{trial.scenario}: {_verdict(trial)}")
    return trials


def _prepared() -> str:
    """Keep quiet about what is done on purpose; returns the commit that runs."""
    logger = logging.getLogger("p2pnode")
    if not logger.isEnabledFor(logging.DEBUG):
        logger.setLevel(logging.CRITICAL)
    return current_commit(Path(p2pnode.__file__).parent)


def _is_right(trial: Trial) -> bool:
    return trial.identical and not trial.failed and not trial.hung


def _verdict(trial: Trial) -> str:
    if trial.hung:
        return f"hung after {trial.tokens} tokens"
    if trial.failed:
        return f"failed after {trial.tokens} tokens: {escape(trial.error or 'no reason', 300)}"
    return "the right tokens" if trial.identical else "WRONG tokens"


def _figures(trial: Trial) -> str:
    found = "" if trial.detection_ms is None else f", noticed after {trial.detection_ms:.0f} ms"
    return (
        f"{trial.tokens} tokens, {trial.loop_ms:.0f} ms each, "
        f"longest stall {trial.stall_ms:.0f} ms, {trial.failovers} failovers{found}"
    )


def _row(summary: dict[str, Any]) -> tuple[str, ...]:
    stall = summary["stall_ms"]
    counts = [str(summary[name]) for name in ("trials", "identical", "failed", "hung")]
    times = [stall["p50"], stall["p95"], stall["max"], summary["loop_ms"], summary["detection_ms"]]
    return (*counts, *("-" if each is None else f"{each:.0f} ms" for each in times))
