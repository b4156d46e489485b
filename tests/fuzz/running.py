"""Feeds a decoder, the same inputs for the same seed, and counts what it says."""

from __future__ import annotations

import faulthandler
import random
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.fuzz.mutate import mutated

HANG_S = 300.0
"""So long for a batch: the program then says where it hangs, and ends."""
BATCH = 1000
MAX_INPUT_S = 1.0
"""Of the processor's time, for one input."""
MAX_GROWTH_MB = 256.0

Mutate = Callable[[random.Random, Sequence[bytes]], bytes]


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder, samples of what it accepts, and the only errors that it may raise."""

    samples: Sequence[bytes]
    decode: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...] = ()
    mutate: Mutate = field(default=mutated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of a run."""

    runs: int
    accepted: int
    refused: int
    took_s: float
    slowest_s: float
    grown_mb: float

    @property
    def rate(self) -> float:
        """Inputs per second of the processor."""
        return self.runs / max(self.took_s, 1e-9)


class Finding(Exception):
    """An input that a decoder did not take as it must; the text has the input."""


def fuzz(target: Target, runs: int, seed: int) -> Report:
    """Feed it so many inputs; raises Finding at the first one that goes wrong."""
    for number, sample in enumerate(target.samples):
        _judge(target, sample, f"sample {number}", must_accept=True)
    rng = random.Random(seed)
    accepted, slowest_s = 0, 0.0
    began, held_mb = time.process_time(), _peak_mb()
    try:
        for index in range(runs):
            if index % BATCH == 0:
                faulthandler.dump_traceback_later(HANG_S, exit=True)
            data = target.mutate(rng, target.samples)
            asked = time.process_time()
            accepted += _judge(target, data, f"input {index} of seed {seed}")
            slowest_s = max(slowest_s, time.process_time() - asked)
            if slowest_s > MAX_INPUT_S:
                raise Finding(f"input {index} of seed {seed} took {slowest_s:.1f} s: {data!r}")
    finally:
        faulthandler.cancel_dump_traceback_later()
    grown_mb = _peak_mb() - held_mb
    if grown_mb > MAX_GROWTH_MB:
        raise Finding(f"{grown_mb:.0f} MB more after {runs} inputs of seed {seed}")
    return Report(
        runs=runs,
        accepted=accepted,
        refused=runs - accepted,
        took_s=time.process_time() - began,
        slowest_s=slowest_s,
        grown_mb=grown_mb,
    )


def _judge(target: Target, data: bytes, what: str, *, must_accept: bool = False) -> bool:
    """Whether it was accepted."""
    try:
        target.decode(data)
    except target.refusals as error:
        if must_accept:
            raise Finding(f"{what} is refused: {error}: {data!r}") from error
        return False
    except Exception as error:
        raise Finding(f"{what}: {type(error).__name__}: {error}: {data!r}") from error
    return True


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
