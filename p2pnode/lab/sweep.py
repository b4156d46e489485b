"""Sweeps: one kind of fault at every hop and every token, some of them in prefill and in flight.

`plan` says which trials; `run_sweep` runs those that a `Record` does not hold yet. Half of the
trials sample with a seed, half of those in decode come while a step is in flight.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from p2pnode.errors import BadRequest
from p2pnode.lab.presets import Link
from p2pnode.lab.record import Record
from p2pnode.lab.result import Trial
from p2pnode.lab.scenario import Fault, FaultKind, Moment, Node, Request, Scenario, Where
from p2pnode.model.source import find_model
from p2pnode.model.spec import read_spec
from p2pnode.types import LayerRange

Backend = Callable[[Scenario], Awaitable[Trial]]
"""Runs a scenario to its end and says what came of it; see `lab.backends`."""

LAYERS_PER_HOP = 3
"""Of the tiny model, which is made to measure."""
TEMPERATURE = 0.8
QUICK_TRIALS = 12
MAX_HOPS = 16
SLOW_COMPUTE_MS = 20.0
"""A slow hop shows where there is something to be slow at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What to try."""

    fault: FaultKind
    hops: int = 3
    tokens: int = 64
    delay_ms: float = 20.0
    """One way, between any two."""
    standby: bool = True
    trials: int | None = None
    """So many, evenly spread; None: every hop at every token."""
    prompt_tokens: int = 16
    model: str = "tiny"
    seed: int = 0

    def __post_init__(self) -> None:
        limits = (("hops", MAX_HOPS), ("tokens", 4096), ("prompt_tokens", 4096))
        for name, most in limits:
            if not 1 <= getattr(self, name) <= most:
                raise BadRequest(f"{name} must be 1 to {most}, not {getattr(self, name)}")
        if self.trials is not None and self.trials < 1:
            raise BadRequest(f"trials must be at least 1, not {self.trials}")
        if not 0.0 <= self.delay_ms <= 60_000.0:
            raise BadRequest(f"delay_ms must be 0 to 60000, not {self.delay_ms:g}")


def plan(sweep: Sweep, cache: Path) -> list[Scenario]:
    """One scenario per trial; every layer range has two nodes, so that one may fail.

    cache: see `find_model`. Raises BadRequest when the model has fewer layers than hops.
    """
    base = _undisturbed(sweep, cache)
    hops = [
        [_trial(sweep, base, hop, token, index) for index, token in enumerate(tokens)]
        for hop, tokens in enumerate(_tokens(sweep))
    ]
    # Hop after hop at each token: a real victim is started again while others are tried.
    rounds = itertools.zip_longest(*hops)
    return [trial for trials in rounds for trial in trials if trial is not None]


async def run_sweep(
    scenarios: list[Scenario], backend: Backend, record: Record
) -> AsyncGenerator[tuple[Trial, bool], None]:
    """Run what the record lacks and add it; yields every trial, and whether it is new.

    A trial in which nothing went wrong on purpose, since the fault never came, is a failed one.
    """
    for scenario in scenarios:
        known = record.trials.get(scenario.name)
        if known is not None:
            yield known, False
            continue
        trial = await backend(scenario)
        record.add(trial)
        yield trial, True
    record.complete()


def _tokens(sweep: Sweep) -> list[list[int]]:
    """For each hop the tokens at which it breaks; 0 is in prefill."""
    hops, trials = sweep.hops, sweep.trials
    if trials is None:
        trials = hops * sweep.tokens
    shares = [trials // hops + (hop < trials % hops) for hop in range(hops)]
    return [_spread(sweep.tokens, min(share, sweep.tokens)) for share in shares]


def _spread(num_tokens: int, num: int) -> list[int]:
    """So many tokens from the first on; the only one is in mid-text, where there is most to see."""
    if num == 1:
        return [num_tokens // 2]
    return [index * num_tokens // num for index in range(num)]


def _trial(sweep: Sweep, base: Scenario, hop: int, token: int, index: int) -> Scenario:
    where = Where.IN_FLIGHT if index % 2 else Where.DECODE
    at = Moment(where=where, token=token) if token else Moment(where=Where.PREFILL)
    is_seeded = (index // 2 + hop) % 2 == 1
    client = base.client
    if is_seeded:
        seed = sweep.seed + 1 + hop * sweep.tokens + token
        client = dataclasses.replace(client, temperature=TEMPERATURE, seed=seed)
    return dataclasses.replace(
        base,
        name=f"{sweep.fault}-hop-{hop}-token-{token}",
        client=client,
        faults=(Fault(kind=sweep.fault, at=at, hop=hop),),
    )


def _undisturbed(sweep: Sweep, cache: Path) -> Scenario:
    compute_ms = SLOW_COMPUTE_MS if sweep.fault is FaultKind.SLOW else 0.0
    nodes = tuple(
        Node(name=f"hop-{hop}", layers=layers, count=2, compute_ms=compute_ms)
        for hop, layers in enumerate(_ranges(sweep, cache))
    )
    return Scenario(
        name="undisturbed",
        nodes=nodes,
        client=Request(prompt_tokens=sweep.prompt_tokens, max_tokens=sweep.tokens),
        seed=sweep.seed,
        model=sweep.model,
        standby=sweep.standby,
        link=Link(delay_ms=sweep.delay_ms),
    )


def _ranges(sweep: Sweep, cache: Path) -> list[LayerRange]:
    if sweep.model == "tiny":
        num_layers = LAYERS_PER_HOP * sweep.hops
    else:
        files = find_model(sweep.model, cache=cache)
        num_layers = read_spec(files.folder, files.name, files.fingerprint).num_layers
    if num_layers < sweep.hops:
        raise BadRequest(f"{num_layers} layers are too few for {sweep.hops} hops")
    edges = [round(hop * num_layers / sweep.hops) for hop in range(sweep.hops + 1)]
    return [LayerRange(start, stop) for start, stop in itertools.pairwise(edges)]
