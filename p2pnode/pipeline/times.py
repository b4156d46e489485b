"""Where the time of a step goes: of each hop, the way to it, the wait for its device, the compute.

A hop tells what it has waited and computed; when its word comes is measured here. What is left
between the words of two hops was spent on the way (of the last hop: to it, and back to us).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from p2pnode.pipeline.hops import HopState
from p2pnode.types import LayerRange, PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """One hop's part of a step, as its last steps were."""

    peer: PeerId
    layers: LayerRange
    num_steps: int
    way_s: float | None
    """None: not measured yet."""
    queue_s: float
    compute_s: float


def step_times(hops: Sequence[HopState], heard_s: Sequence[float]) -> tuple[StepTimes, ...]:
    """heard_s: how long after a step's start each hop is heard; empty while nothing is known."""
    before_s = [0.0, *heard_s]
    return tuple(
        StepTimes(
            peer=state.peer,
            layers=state.hop.layers,
            num_steps=state.num_steps,
            way_s=_way_s(state, heard_s[index] - before_s[index]) if heard_s else None,
            queue_s=max(0.0, state.recent_queue_s),
            compute_s=max(0.0, state.recent_compute_s),
        )
        for index, state in enumerate(hops)
    )


def _way_s(state: HopState, between_s: float) -> float:
    return max(0.0, between_s - state.recent_queue_s - state.recent_compute_s)
