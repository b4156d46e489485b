"""With a second peer for every hop nobody notices: standbys, hedges, leaving, bounded journals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2pnode.client.client import Client
from p2pnode.lab.swarm import LabNode, LocalSwarm
from p2pnode.types import PeerId, Sampling
from tests.support.models import greedy
from tests.support.runs import NUM_TOKENS, PROMPT, Run

LATENCY_S = 0.02
LOOP_S = 4 * LATENCY_S
PAIRS = ("0-2", "3-5", "6-8", "0-2", "3-5", "6-8")

pytestmark = pytest.mark.virtual_time

Act = Callable[[int, LabNode], None]
"""Called with the number of tokens so far, and the node that is the hop in question now."""


class HopRun(Run):
    """A run in which something happens to a hop."""

    def __init__(self, swarm: LocalSwarm, client: Client, hop: int, act: Act) -> None:
        super().__init__()
        self._swarm = swarm
        self._client = client
        self._hop = hop
        self._act = act

    async def run(self, num_tokens: int = NUM_TOKENS, **options: Any) -> HopRun:
        """Ask and follow."""

        def act(count: int, chain: list[PeerId]) -> None:
            self._act(count, self._swarm.node(chain[self._hop]))

        await self.of(self._client, num_tokens=num_tokens, act=act, **options)
        return self

    @property
    def stall_s(self) -> float:
        return max(self.gaps_s) - LOOP_S


def once(at: int, act: Callable[[LabNode], None]) -> Act:
    """Act when there are so many tokens."""
    return lambda count, node: act(node) if count == at else None


@pytest.mark.parametrize("at", [1, 2, 12, 30])
@pytest.mark.parametrize("hop", range(3))
async def test_a_death_costs_less_than_a_loop(hop: int, at: int, tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start(*PAIRS)
        async with swarm.client() as client:
            run = await HopRun(swarm, client, hop, once(at, swarm.kill)).run()
    assert run.tokens == greedy(tiny, PROMPT, NUM_TOKENS)
    assert run.done.failovers == 1
    # The first tokens come before there is a standby: then the whole journal is replayed.
    assert run.stall_s < (LOOP_S if at >= 12 else 8 * LOOP_S)


@pytest.mark.parametrize("hop", range(3))
async def test_a_frozen_hop_is_outpaced_by_its_standby(hop: int, tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start(*PAIRS)
        async with swarm.client() as client:
            run = await HopRun(
                swarm, client, hop, once(12, lambda node: swarm.network.freeze(node.peer))
            ).run()
        for node in swarm.nodes:
            swarm.network.thaw(node.peer)
    assert run.tokens == greedy(tiny, PROMPT, NUM_TOKENS)
    assert run.stall_s < 2 * LOOP_S
    assert run.chains[0][hop] != run.chains[-1][hop]


@pytest.mark.parametrize("hop", range(3))
async def test_a_node_that_leaves_is_not_noticed(hop: int, tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start(*PAIRS)
        async with swarm.client() as client:
            run = await HopRun(swarm, client, hop, once(12, lambda node: node.leaving.set())).run()
            assert run.chains[0][hop] not in swarm.network.transports, "it has left"
    assert run.tokens == greedy(tiny, PROMPT, NUM_TOKENS)
    assert run.stall_s < LOOP_S / 2
    assert run.done.failovers == 1


async def test_a_node_without_sessions_leaves_at_once(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        (node,) = await swarm.start("0-8")
        node.leaving.set()
        await asyncio.sleep(3.0)
        assert node.peer not in swarm.network.transports


async def test_a_node_that_nobody_can_replace_serves_until_its_time_is_over(
    tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start("0-2", "3-5", "6-8")
        async with swarm.client() as client:
            run = await HopRun(swarm, client, 1, once(12, lambda node: node.leaving.set())).run()
    assert run.tokens == greedy(tiny, PROMPT, NUM_TOKENS)
    assert run.done.failovers == 0


async def test_one_after_the_other_dies_and_every_time_the_next_is_ready(
    tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start(*PAIRS, *PAIRS)

        def act(count: int, node: LabNode) -> None:
            if count in (12, 24, 36):
                swarm.kill(node)

        async with swarm.client() as client:
            run = await HopRun(swarm, client, 1, act).run(48)
    assert run.tokens == greedy(tiny, PROMPT, 48)
    assert run.done.failovers == 3
    assert run.stall_s < LOOP_S


async def test_a_last_hop_that_stood_by_knows_the_tokens_that_sampling_needs(
    tiny: Path, cache: Path
) -> None:
    sampling = Sampling(temperature=0.8, repetition_penalty=1.3, seed=7)
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start(*PAIRS)
        async with swarm.client() as client:
            nothing: Act = lambda count, node: None  # noqa: E731
            undisturbed = await HopRun(swarm, client, 2, nothing).run(sampling=sampling)
            run = await HopRun(swarm, client, 2, once(12, swarm.kill)).run(sampling=sampling)
    assert run.tokens == undisturbed.tokens
    assert run.done.failovers == 1


async def test_a_standby_that_dies_is_replaced_and_not_missed(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start(*PAIRS, *PAIRS)

        def act(count: int, hop: LabNode) -> None:
            others = [n for n in swarm.nodes if n.layers == hop.layers and n is not hop]
            if count == 12:
                for standby in others[:2]:
                    swarm.kill(standby)
            elif count == 36:
                swarm.kill(hop)

        async with swarm.client() as client:
            run = await HopRun(swarm, client, 1, act).run(48)
    assert run.tokens == greedy(tiny, PROMPT, 48)
    assert run.stall_s < LOOP_S


@pytest.mark.parametrize("hop", range(3))
async def test_journals_that_have_forgotten_are_made_anew_from_further_up(
    hop: int, tiny: Path, cache: Path
) -> None:
    few = {"journal_bytes": 4 * 32 * 4, "standbys": False}
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S, config=few) as swarm:
        await swarm.start(*PAIRS)
        async with swarm.client() as client:
            run = await HopRun(swarm, client, hop, once(20, swarm.kill)).run()
    assert run.tokens == greedy(tiny, PROMPT, NUM_TOKENS)
    assert run.done.failovers >= 1


async def test_without_standbys_a_replacement_is_ready_for_its_journal(
    tiny: Path, cache: Path
) -> None:
    alone = {"standbys": False}
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S, config=alone) as swarm:
        await swarm.start(*PAIRS)
        async with swarm.client() as client:
            run = await HopRun(swarm, client, 1, once(20, swarm.kill)).run()
    assert run.tokens == greedy(tiny, PROMPT, NUM_TOKENS)
    assert run.stall_s <= LATENCY_S + 8 * LATENCY_S, "detection and 4 round trips"


async def test_a_session_that_ends_frees_its_standbys(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start(*PAIRS)
        async with swarm.client() as client:
            nothing: Act = lambda count, node: None  # noqa: E731
            await HopRun(swarm, client, 0, nothing).run()
            await asyncio.sleep(1.0)
            opened = [sum(node.open_hops.values()) for node in swarm.nodes]
    assert opened == [0] * 6
    events = [event for node in swarm.nodes for event, _ in node.events]
    assert events.count("session_opened") == 6, "three hops and three standbys"
