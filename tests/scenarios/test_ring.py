"""The last hop hands its tokens straight to the first: sooner, and never another text."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from p2pnode.lab.swarm import LocalSwarm
from p2pnode.net.memory import Line
from p2pnode.pipeline.inbox import MAX_RESULTS
from p2pnode.serving import handler, ring
from p2pnode.serving.job import Output
from p2pnode.serving.ring import MAX_AHEAD
from p2pnode.serving.session import HopSession
from p2pnode.types import LayerRange, PeerId, Sampling, Tensor
from p2pnode.wire.messages import Step
from tests.support.models import greedy
from tests.support.runs import NUM_TOKENS, PROMPT, Run

LATENCY_S = 0.02
PLACED_S = 60.0
"""Until everybody knows about where they are."""
ALONE = {"standbys": False}
PENALISED = Sampling(temperature=0.8, seed=7, repetition_penalty=1.3)

pytestmark = pytest.mark.virtual_time


@pytest.mark.parametrize(
    ("ranges", "ways"),
    [(("0-8",), 0), (("0-3", "4-8"), 2), (("0-2", "3-5", "6-8"), 3)],
    ids=["1", "2", "3"],
)
async def test_a_token_takes_one_way_less(
    ranges: tuple[str, ...], ways: int, tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S, config=ALONE) as swarm:
        await swarm.start(*ranges)
        async with swarm.client() as client:
            run = Run()
            done = await run.of(client)
    assert list(done.token_ids) == greedy(tiny, PROMPT, NUM_TOKENS)
    # The very first ones may come before the last hop has reached the first one.
    assert run.token_s == pytest.approx(ways * LATENCY_S, rel=0.05, abs=0.1 * LATENCY_S)


async def test_peers_near_each_other_write_at_their_own_pace_however_far_away(
    tiny: Path, cache: Path
) -> None:
    """Beside us is a first half; far away there are both, beside each other."""
    beside_us, near, far = Line(latency_s=0.001), Line(latency_s=0.02), Line(latency_s=0.08)
    async with LocalSwarm(tiny, cache=cache, config=ALONE) as swarm:
        client = swarm.client()
        (here,) = swarm.client_peers
        beside, first, last = await swarm.start("0-4", "0-4", "5-8")
        swarm.network.set_line(here, beside.peer, beside_us)
        swarm.network.set_line(first.peer, last.peer, near)
        for one, other in itertools.product((here, beside.peer), (first.peer, last.peer)):
            swarm.network.set_line(one, other, far)
        async with client:
            await asyncio.sleep(PLACED_S)
            run = Run()
            done = await run.of(client)
    assert run.chains == [[first.peer, last.peer]]
    assert list(done.token_ids) == greedy(tiny, PROMPT, NUM_TOKENS)
    assert run.token_s == pytest.approx(2 * near.latency_s, rel=0.1)


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.8, seed=7), PENALISED])
async def test_what_is_drawn_is_the_same_in_all_chains(
    sampling: Sampling, tiny: Path, cache: Path
) -> None:
    texts = []
    for ranges in (("0-8",), ("0-2", "3-5", "6-8")):
        async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S, config=ALONE) as swarm:
            await swarm.start(*ranges)
            async with swarm.client() as client:
                texts.append((await Run().of(client, sampling=sampling)).token_ids)
    assert texts[0] == texts[1]


async def test_a_last_hop_that_reaches_nobody_is_no_failure(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S, config=ALONE) as swarm:
        first, _, last = await swarm.start("0-2", "3-5", "6-8")
        swarm.network.silence(last.peer, first.peer)
        async with swarm.client() as client:
            run = Run()
            done = await run.of(client)
    assert list(done.token_ids) == greedy(tiny, PROMPT, NUM_TOKENS)
    assert done.failovers == 0
    assert run.token_s == pytest.approx(4 * LATENCY_S, rel=0.05)


@pytest.mark.parametrize("ranges", [("0-8",), ("0-2", "3-5", "6-8")], ids=["1", "3"])
async def test_nobody_runs_far_ahead_of_a_client_that_reads_slowly(
    ranges: tuple[str, ...], tiny: Path, cache: Path
) -> None:
    num_tokens, compute_s = 120, 0.001
    ahead: list[int] = []

    def note(count: int, chain: list[PeerId]) -> None:
        num_forwards = round(swarm.nodes[0].conditions.spent_s / compute_s)
        ahead.append(num_forwards - count)

    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S, config=ALONE) as swarm:
        for layers in ranges:
            node = swarm.add(LayerRange.parse(layers), compute_s=compute_s)
            await node.is_serving.wait()
        async with swarm.client() as client:
            done = await Run().of(client, num_tokens=num_tokens, pause_s=5.0, act=note)
    assert list(done.token_ids) == greedy(tiny, PROMPT, num_tokens)
    assert done.failovers == 0
    assert MAX_AHEAD - 2 <= max(ahead) <= MAX_AHEAD + 1 < MAX_RESULTS


@pytest.mark.parametrize("hop", range(3))
@pytest.mark.parametrize("dies_at", [1, 2, 20])
@pytest.mark.parametrize("standbys", [True, False], ids=["standbys", "alone"])
async def test_it_goes_round_again_after_a_failure(
    hop: int, dies_at: int, standbys: bool, tiny: Path, cache: Path
) -> None:
    def kill(count: int, chain: list[PeerId]) -> None:
        if count == dies_at and len(run.chains) == 1:
            swarm.kill(swarm.node(chain[hop]))

    config = {"standbys": standbys}
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S, config=config) as swarm:
        await swarm.start("0-2", "3-5", "6-8", "0-2", "3-5", "6-8")
        async with swarm.client() as client:
            run = Run()
            done = await run.of(client, act=kill)
    assert list(done.token_ids) == greedy(tiny, PROMPT, NUM_TOKENS)
    assert done.failovers == 1
    last = run.at_s[-10:]
    assert (last[-1] - last[0]) / 9 == pytest.approx(3 * LATENCY_S, rel=0.1)


async def test_a_last_hop_that_tells_two_stories_is_found_out(
    tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lie(session: HopSession, output: Output) -> Step | None:
        step = ring.following(session, output)
        if step is None or step.position != len(PROMPT) + 5 or session.epoch > 1:
            return step
        return replace(step, entry=Tensor("int64", (1,), bytes(8)))

    monkeypatch.setattr(handler, "following", lie)
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S, config=ALONE) as swarm:
        await swarm.start("0-2", "3-5", "6-8", "6-8")
        async with swarm.client() as client:
            run = Run()
            done = await run.of(client)
    assert list(done.token_ids) == greedy(tiny, PROMPT, NUM_TOKENS)
    assert len(run.chains) == 2
    assert run.chains[0][:2] == run.chains[1][:2]
    assert run.chains[0][2] != run.chains[1][2]


async def test_without_another_last_hop_the_liar_goes_on_without_a_ring(
    tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lie(session: HopSession, output: Output) -> Step | None:
        step = ring.following(session, output)
        return None if step is None else replace(step, entry=Tensor("int64", (1,), bytes(8)))

    monkeypatch.setattr(handler, "following", lie)
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S, config=ALONE) as swarm:
        await swarm.start("0-2", "3-5", "6-8")
        async with swarm.client() as client:
            run = Run()
            done = await run.of(client)
    assert list(done.token_ids) == greedy(tiny, PROMPT, NUM_TOKENS)
    assert done.failovers == 1
    assert run.at_s[-1] - run.at_s[-2] == pytest.approx(4 * LATENCY_S)
