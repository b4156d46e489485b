"""A hop that leaves is replaced by its standby, unless that one has become its neighbour."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pnode.lab.swarm import LabNode, LocalSwarm
from p2pnode.types import LayerRange
from tests.scenarios.test_standby import LATENCY_S, LOOP_S, HopRun, once
from tests.support.models import greedy
from tests.support.runs import NUM_TOKENS, PROMPT

pytestmark = pytest.mark.virtual_time

SLOWER_S = 0.2
"""What its block announces, longer than the way that it saves: it is only a standby."""


async def test_a_standby_that_became_a_neighbour_is_replaced_before_its_hop_leaves(
    tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        first, middle, last = await swarm.start("0-2", "3-5", "6-8")
        (wide,) = await swarm.start("3-8", latency_s=SLOWER_S)
        (spare,) = await swarm.start("3-5", latency_s=4 * SLOWER_S)

        def act(count: int, hop: LabNode) -> None:
            if count == 12:
                swarm.kill(last)  # its standby, the wide one, also stands by for the hop before
            elif count == 26:
                middle.leaving.set()

        async with swarm.client() as client:
            run = await HopRun(swarm, client, 1, act).run()
    assert run.chains == [
        [first.peer, middle.peer, last.peer],
        [first.peer, middle.peer, wide.peer],
        [first.peer, spare.peer, wide.peer],
    ]
    assert run.tokens == greedy(tiny, PROMPT, NUM_TOKENS)
    assert max(run.gaps_s[20:]) - LOOP_S < LOOP_S / 2, "only the tail was sent again"


async def test_of_two_neighbours_that_leave_at_once_one_stays_when_they_share_a_standby(
    tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        first, middle, last = await swarm.start("0-2", "3-5", "6-8")
        (wide,) = await swarm.start("3-8", latency_s=SLOWER_S)

        def act(count: int, hop: LabNode) -> None:
            if count == 12:
                middle.leaving.set()
                last.leaving.set()

        async with swarm.client() as client:
            run = await HopRun(swarm, client, 1, act).run()
    # Whose turn came first has the standby; the other one serves on until its time is over.
    assert run.chains[0] == [first.peer, middle.peer, last.peer]
    assert run.chains[1] in (
        [first.peer, wide.peer, last.peer],
        [first.peer, middle.peer, wide.peer],
    )
    assert len(run.chains) == 2
    assert run.tokens == greedy(tiny, PROMPT, NUM_TOKENS)
    assert run.stall_s < LOOP_S / 2


async def test_a_hop_that_became_slow_stays_while_its_standby_is_far_behind(
    tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        hops = [swarm.add(LayerRange(a, a + 3), compute_s=0.01) for a in (0, 3, 6)]
        for hop in hops:
            await hop.is_serving.wait()
        (spare,) = await swarm.start("3-5", latency_s=SLOWER_S)
        spare.conditions.compute_s = 1000.0  # it never catches up

        def slow(hop: LabNode) -> None:
            hop.conditions.slow_factor = 5.0

        async with swarm.client() as client:
            run = await HopRun(swarm, client, 1, once(60, slow)).run(90)
    assert run.chains == [[hop.peer for hop in hops]]
    assert run.tokens == greedy(tiny, PROMPT, 90)
    assert run.stall_s < LOOP_S


async def test_hops_slow_now_and_then_give_way_less_and_less(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        hops = [swarm.add(LayerRange(a, a + 3), compute_s=0.01) for a in (0, 3, 3, 6)]
        for hop in hops:
            await hop.is_serving.wait()

        def turn(count: int, hop: LabNode) -> None:
            for each in hops[1:3]:  # both, so it helps nobody to change
                each.conditions.slow_factor = 8.0 if count % 24 < 6 else 1.0

        async with swarm.client() as client:
            run = await HopRun(swarm, client, 1, turn).run(180)
    assert run.tokens == greedy(tiny, PROMPT, 180)
    assert 1 < len(run.chains) <= 3, "after 2 late steps, then 4; there are no 8"
