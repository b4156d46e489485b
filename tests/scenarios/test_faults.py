"""Each kind of fault at every hop, in prefill, in decode and in flight, on virtual time.

The tokens are those of the unsplit model, nothing hangs, and what a reader waits is bounded. The
sweep of every hop at every token is a command: ``p2pnode lab sweep --fault KIND``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pnode.errors import PeerError, PeerMisbehaved
from p2pnode.lab.faults import BREAKING
from p2pnode.lab.memory_runner import run_in_memory
from p2pnode.lab.presets import Link
from p2pnode.lab.result import Trial
from p2pnode.lab.scenario import Fault, FaultKind, Moment, Node, Request, Scenario, Where
from p2pnode.types import LayerRange

NUM_TOKENS = 9
DELAY_MS = 20.0
LOOP_MS = 4 * DELAY_MS + 3 * 5.0
MOMENTS = {
    "in prefill": Moment(where=Where.PREFILL),
    "in decode": Moment(where=Where.DECODE, token=5),
    "in flight": Moment(where=Where.IN_FLIGHT, token=6),
}
HARMFUL = (*sorted(BREAKING - {FaultKind.KILL}), FaultKind.OOM)
HARMLESS = (
    FaultKind.SLOW,
    FaultKind.LOSS,
    FaultKind.THIN,
    FaultKind.DISK_FULL,
    FaultKind.CLOCK,
)
SILENT = (FaultKind.STALL, FaultKind.DROP, FaultKind.PARTITION)
SHOWN_AT_ONCE_MS = 1000.0
SILENCE_MS = 4000.0


def run(kind: FaultKind, hop: int, at: Moment, cache: Path, *, standby: bool = True) -> Trial:
    """One generation; half of them sample."""
    nodes = tuple(
        Node(name=name, layers=LayerRange(start, start + 3), count=2, compute_ms=5.0)
        for name, start in (("first", 0), ("middle", 3), ("last", 6))
    )
    temperature = 0.8 if (hop + len(at.where)) % 2 else 0.0
    request = Request(prompt_tokens=8, max_tokens=NUM_TOKENS, temperature=temperature, seed=hop)
    scenario = Scenario(
        name=f"{kind}-{hop}",
        nodes=nodes,
        client=request,
        link=Link(delay_ms=DELAY_MS),
        standby=standby,
        faults=(Fault(kind=kind, at=at, hop=hop),),
    )
    return run_in_memory(scenario, cache)


def moment_for(kind: FaultKind, hop: int) -> Moment:
    """Each hop at another moment, and each kind in another order."""
    moments = list(MOMENTS.values())
    return moments[(hop + list(FaultKind).index(kind)) % len(moments)]


def assert_right(trial: Trial, limit_ms: float) -> None:
    """The fault was made where it was meant to be, and the reader has hardly noticed."""
    assert trial.error is None
    assert trial.hop is not None
    assert (trial.identical, trial.failed, trial.hung) == (True, False, False)
    assert trial.stall_ms < limit_ms


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("hop", range(3))
def test_a_hop_is_killed_whenever(hop: int, moment: str, cache: Path) -> None:
    trial = run(FaultKind.KILL, hop, MOMENTS[moment], cache)
    assert_right(trial, SHOWN_AT_ONCE_MS)
    assert trial.failovers == 1


@pytest.mark.parametrize("hop", range(3))
@pytest.mark.parametrize("kind", HARMFUL)
def test_the_text_goes_on_without_the_victim(kind: FaultKind, hop: int, cache: Path) -> None:
    trial = run(kind, hop, moment_for(kind, hop), cache)
    assert_right(trial, SILENCE_MS if kind in SILENT else SHOWN_AT_ONCE_MS)
    assert trial.failovers == 1


@pytest.mark.parametrize(("hop", "moment"), list(enumerate(MOMENTS)))
def test_without_standbys_the_text_goes_on_as_well(hop: int, moment: str, cache: Path) -> None:
    trial = run(FaultKind.KILL, hop, MOMENTS[moment], cache, standby=False)
    assert_right(trial, SHOWN_AT_ONCE_MS)
    assert trial.failovers == 1


@pytest.mark.parametrize("hop", range(3))
def test_a_standby_shortens_the_stall(hop: int, cache: Path) -> None:
    at = Moment(where=Where.DECODE, token=NUM_TOKENS - 1)
    alone, warm = (
        run(FaultKind.KILL, hop, at, cache, standby=standby).stall_ms for standby in (False, True)
    )
    assert warm < alone


@pytest.mark.parametrize("hop", range(3))
@pytest.mark.parametrize("kind", HARMLESS)
def test_the_text_is_right_whatever_else_happens(kind: FaultKind, hop: int, cache: Path) -> None:
    assert_right(run(kind, hop, moment_for(kind, hop), cache), SHOWN_AT_ONCE_MS)


@pytest.mark.parametrize("hop", range(3))
def test_a_hop_with_corrupt_frames_is_said_to_misbehave(
    hop: int, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert_right(run(FaultKind.CORRUPT, hop, MOMENTS["in decode"], cache), SHOWN_AT_ONCE_MS)
    errors = [
        error
        for record in caplog.records
        if record.name.startswith("p2pnode.pipeline") and isinstance(record.args, tuple)
        for error in record.args
        if isinstance(error, PeerError)
    ]
    assert [type(error) for error in errors] == [PeerMisbehaved]
