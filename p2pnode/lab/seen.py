"""What was seen of one run, and what it comes to: the same for every transport."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pnode.lab.reference import Task
from p2pnode.lab.result import Trial
from p2pnode.lab.scenario import Fault, Scenario
from p2pnode.lab.timing import pace, recovery_steps


@dataclass(slots=True, eq=False)
class Seen:
    """Tokens, faults and failures, with their times in seconds on one clock, whichever it is."""

    scenario: Scenario
    task: Task
    token_ids: list[int] = field(default_factory=list)
    token_times_s: list[float] = field(default_factory=list)
    faults: list[tuple[Fault, float, int | None]] = field(default_factory=list)
    """Those that happened, when, and to which hop of the chain."""
    failures_s: list[float] = field(default_factory=list)
    """When the client gave up on a hop."""
    failovers: int = 0
    is_hung: bool = False
    error: str | None = None

    def trial(self, transport: str, commit: str) -> Trial:
        """The run as a result."""
        scenario = self.scenario
        first = scenario.faults[0] if scenario.faults else None
        happened, at_s, hop = self.faults[0] if self.faults else (first, None, None)
        error = self.error
        if error is None and len(self.faults) < len(scenario.faults) and not self.is_hung:
            error = "a fault of the scenario never happened"
        measured = pace(self.token_times_s, at_s)
        return Trial(
            scenario=scenario.name,
            transport=transport,
            fault=happened.kind.value if happened else None,
            hop=hop,
            where=happened.at.where.value if happened else None,
            token=happened.at.token if happened else None,
            seed=scenario.seed,
            temperature=scenario.client.temperature,
            standby=scenario.standby,
            identical=tuple(self.token_ids) == self.task.expected,
            failed=error is not None,
            hung=self.is_hung,
            failovers=self.failovers,
            stall_ms=measured.stall_ms,
            loop_ms=measured.loop_ms,
            detection_ms=None if at_s is None else self._detection_ms(at_s),
            tokens=len(self.token_ids),
            error=error,
            commit=commit,
            recovery_steps=None if at_s is None else recovery_steps(self.token_times_s, at_s),
        )

    def _detection_ms(self, fault_at_s: float) -> float | None:
        found = (when for when in self.failures_s if when >= fault_at_s)
        when = next(found, None)
        return None if when is None else round(1e3 * (when - fault_at_s), 3)
