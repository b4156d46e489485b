"""What a lab says of one run (`Trial`), and of many (`Summary`)."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Self

from p2pnode.errors import BadRequest
from p2pnode.log import escape

TRANSPORTS = ("namespaces", "memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One generation, and what a fault did to it. Times are milliseconds."""

    scenario: str
    transport: str
    """``namespaces`` (real processes, real time) or ``memory`` (virtual time)."""
    fault: str | None
    """The first one's kind; None: nothing went wrong on purpose."""
    hop: int | None
    """The victim's place in the chain when it happened; None: it had none."""
    where: str | None
    token: int | None
    """How many tokens the client had when it happened."""
    seed: int
    temperature: float
    standby: bool
    identical: bool
    """The tokens are those of the unsplit model."""
    failed: bool
    """The generation ended with an error."""
    hung: bool
    """It did not end within the limit."""
    failovers: int
    stall_ms: float
    """The longest gap between two tokens after the fault (in prefill: to the first token, from
    the fault), minus the loop time."""
    loop_ms: float
    """Median time of one token before the fault; of all where there were fewer than 3."""
    detection_ms: float | None
    """From the fault until the client gave up on a hop; None: it never did."""
    tokens: int
    error: str | None = None
    commit: str = "unknown"
    recovery_steps: int | None = None
    """See `timing.recovery_steps`; None also when the text is too short to say."""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Read what `to_json` wrote; raises BadRequest for anything else."""
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"a lab result is not JSON: {escape(str(error), 100)}") from None
        if not isinstance(values, dict):
            raise BadRequest("a lab result is not a JSON object")
        names = {each.name for each in dataclasses.fields(cls)}
        if values.keys() != names:
            odd = escape(", ".join(sorted(values.keys() ^ names)), 200)
            raise BadRequest(f"a lab result has missing or unknown fields: {odd}")
        for each in dataclasses.fields(cls):
            if not _is_of(str(each.type), values[each.name]):
                raise BadRequest(f"a lab result has a wrong {each.name}")
        if values["transport"] not in TRANSPORTS:
            raise BadRequest(f"a lab result has a wrong transport; known: {', '.join(TRANSPORTS)}")
        return cls(**values)


_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "None": (type(None),),
}


def _is_of(annotation: str, value: Any) -> bool:
    """Whether a JSON value fits ``"int | None"``; True is no int, NaN is no float."""
    kinds = tuple(kind for name in annotation.split(" | ") for kind in _KINDS[name])
    if isinstance(value, bool) and bool not in kinds:
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How a figure is spread over trials; all 0 without any."""

    p50: float = 0.0
    p95: float = 0.0
    max: float = 0.0

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Percentiles are values that occurred: the smallest one that so many do not exceed."""
        if not values:
            return cls()
        ranked = sorted(values)
        p50, p95 = (ranked[math.ceil(share * len(ranked)) - 1] for share in (0.5, 0.95))
        return cls(p50=round(p50, 3), p95=round(p95, 3), max=round(ranked[-1], 3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What `p2pnode lab sweep` prints last."""

    trials: int
    identical: int
    failed: int
    hung: int
    stall_ms: Spread
    loop_ms: float
    """Median of the trials' loop times."""
    detection_ms: float | None
    """Median of those in which a hop was given up on; None: in none."""

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> Self:
        """Add up trials; stalls and loops are of those that ended."""
        ended = [trial for trial in trials if not (trial.failed or trial.hung)]
        found = [trial.detection_ms for trial in trials if trial.detection_ms is not None]
        loops = [trial.loop_ms for trial in ended]
        return cls(
            trials=len(trials),
            identical=sum(trial.identical for trial in trials),
            failed=sum(trial.failed for trial in trials),
            hung=sum(trial.hung for trial in trials),
            stall_ms=Spread.of([trial.stall_ms for trial in ended]),
            loop_ms=round(median(loops), 3) if loops else 0.0,
            detection_ms=round(median(found), 3) if found else None,
        )
