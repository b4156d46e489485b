"""The figures of a soak: what came of requests, how memory grew, what was left. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import linear_regression
from typing import Any, Self

from p2pnode.errors import BadRequest
from p2pnode.types import LayerRange

LONG_S = 600.0
"""A process that lives for so long is measured, also when the soak is longer."""
SETTLING_S = 180.0
"""Memory grows while caches fill: the first minutes of a process do not count."""
FEWEST_SAMPLES = 6
MB = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakResult:
    """What a soak comes to; also its checkpoint, while it runs."""

    minutes: float = 0.0
    """How long it has run, earlier parts included."""
    requests: int = 0
    right: int = 0
    wrong: int = 0
    failed: int = 0
    hung: int = 0
    last_failure: str = ""
    """Why the last request that did not go right did not."""
    kills: int = 0
    joins: int = 0
    failovers: int = 0
    rss_slope_mb_per_min: float = 0.0
    """The steepest of the processes that lived long enough; see `slope_mb_per_min`."""
    steepest: str = ""
    """Which one that is."""
    slopes: int = 0
    """How many processes that were."""
    leaked: int = 0
    """All of the following together."""
    leaked_sessions: int = 0
    leaked_descriptors: int = 0
    leaked_tasks: int = 0
    leaked_daemons: int = 0
    seed: int = 0
    commit: str = "unknown"
    is_complete: bool = False

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Read what `to_json` wrote; raises BadRequest for anything else."""
        try:
            values: Any = json.loads(line)
        except (ValueError, RecursionError):
            raise BadRequest("a checkpoint of a soak is not JSON") from None
        kinds = {each.name: type(each.default) for each in dataclasses.fields(cls)}
        if not isinstance(values, dict) or values.keys() != kinds.keys():
            raise BadRequest("a checkpoint of a soak has missing or unknown fields")
        for name, kind in kinds.items():
            if type(values[name]) is not kind:
                raise BadRequest(f"a checkpoint of a soak has a wrong {name}")
        return cls(**values)


def slope_mb_per_min(samples: Sequence[tuple[float, int]], whole_s: float) -> float | None:
    """How fast the memory of one process grew, by linear regression.

    samples: (seconds since the process was first seen, bytes), rising; whole_s: how long the soak
    runs. None for a process that lived shorter than `LONG_S` and shorter than the soak.
    """
    if not samples:
        return None
    lived_s = samples[-1][0] - samples[0][0]
    if lived_s < min(LONG_S, 0.8 * whole_s):
        return None
    settled = samples[0][0] + min(SETTLING_S, lived_s / 3)
    counted = [sample for sample in samples if sample[0] >= settled]
    if len(counted) < FEWEST_SAMPLES:
        return None
    fit = linear_regression([at_s for at_s, _ in counted], [size for _, size in counted])
    return float(fit.slope) * 60.0 / MB


def victims(layers_of: Mapping[str, LayerRange]) -> list[str]:
    """Who may die: nodes whose layers somebody else serves, too. layers_of: by name."""
    served = list(layers_of.values())
    return sorted(name for name, layers in layers_of.items() if served.count(layers) > 1)
