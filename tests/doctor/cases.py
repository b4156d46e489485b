"""A healthy chain of three, and the verdict on what is changed in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from p2pnode.doctor.measured import ChainMeasured, HopMeasured, Measured, Ways
from p2pnode.doctor.report import Cause, Verdict
from p2pnode.doctor.rules import judge
from p2pnode.types import LayerRange
from tests.support.peers import announced, peer, view

A, B, C = (peer(name) for name in "ABC")
SWARM = view(
    announced("A", "0-2", memory_bytes_per_s=2e10),
    announced("B", "3-5", memory_bytes_per_s=2e10),
    announced("C", "6-8", memory_bytes_per_s=2e10),
    A={},
    B={},
    C={},
)


def hop(
    name: str, layers: str, rtts_s: Sequence[float] = (0.04,) * 30, **changes: Any
) -> HopMeasured:
    plain = HopMeasured(
        peer=peer(name),
        layers=LayerRange.parse(layers),
        connect_s=0.1,
        ways=Ways(rtts_s=tuple(rtts_s)),
        queue_s=0.0,
        compute_s=0.01,
        way_s=0.02,
        transfer_s=0.0,
    )
    return replace(plain, **changes)


HOPS = (hop("A", "0-2"), hop("B", "3-5"), hop("C", "6-8"))
CHAIN = ChainMeasured(hops=HOPS, num_tokens=32, ttft_s=0.17, token_s=0.11)
HEALTHY = Measured(join_s=0.5, directory_s=0.1, view=SWARM, chain=CHAIN)


def judged(**changes: Any) -> Verdict:
    verdict = judge(replace(HEALTHY, **changes))
    assert bool(verdict.remedy) is (verdict.cause is not Cause.NONE)
    assert verdict.evidence
    return verdict


def with_b(
    token_s: float = 0.11, *, rtts_s: Sequence[float] = (0.04,) * 30, **changes: Any
) -> Verdict:
    """The verdict on a chain whose second hop is another one."""
    hops = (HOPS[0], hop("B", "3-5", rtts_s, **changes), HOPS[2])
    return judged(chain=replace(CHAIN, hops=hops, token_s=token_s))
