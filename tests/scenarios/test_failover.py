"""Whatever dies, whenever it dies: the tokens are those of the unsplit model, each exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from p2pnode.client.client import Client
from p2pnode.client.events import ChainChosen, Done, Token
from p2pnode.errors import NoChain
from p2pnode.lab.swarm import LocalSwarm
from tests.support.models import greedy

PROMPT = [1, 403, 407, 261, 378, 31, 76, 99]
NUM_TOKENS = 10
LATENCY_S = 0.01

pytestmark = pytest.mark.virtual_time


async def tokens_of(
    client: Client, at_token: Callable[[int], None] | None = None, num_tokens: int = NUM_TOKENS
) -> tuple[list[int], Done]:
    """Generate; tells ``at_token`` how many tokens there are. Checks order and uniqueness."""
    made: list[int] = []
    done: Done | None = None
    async with aclosing(client.stream(PROMPT, max_tokens=num_tokens)) as events:
        async for event in events:
            if isinstance(event, Token):
                assert event.position == len(PROMPT) + len(made)
                made.append(event.token_id)
                if at_token is not None:
                    at_token(len(made))
            elif isinstance(event, Done):
                done = event
    assert done is not None
    assert list(done.token_ids) == made
    return made, done


async def test_three_nodes_write_what_the_unsplit_model_writes(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start("0-2", "3-5", "6-8")
        async with swarm.client() as client:
            made, done = await tokens_of(client)
    assert made == greedy(tiny, PROMPT, NUM_TOKENS)
    assert [str(hop.layers) for hop in done.chain.hops] == ["0-2", "3-5", "6-8"]
    assert done.failovers == 0


@pytest.mark.parametrize("dies_at", range(1, NUM_TOKENS))
@pytest.mark.parametrize("hop", range(3))
async def test_a_hop_dies_at_every_token(hop: int, dies_at: int, tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        await swarm.start("0-8", latency_s=1.0)
        async with swarm.client() as client:
            made, done = await tokens_of(
                client, lambda count: swarm.kill(nodes[hop]) if count == dies_at else None
            )
    assert made == greedy(tiny, PROMPT, NUM_TOKENS)
    assert done.failovers >= 1
    assert done.stall_s < 3.0


@pytest.mark.parametrize("hop", range(3))
@pytest.mark.parametrize("delay_ms", range(1, 60, 6))
async def test_a_hop_dies_while_the_step_is_in_flight(
    hop: int, delay_ms: int, tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        await swarm.start("0-8", latency_s=1.0)
        loop = asyncio.get_running_loop()

        def kill_soon(count: int) -> None:
            if count == 4:
                loop.call_later(delay_ms / 1000, swarm.kill, nodes[hop])

        async with swarm.client() as client:
            made, _ = await tokens_of(client, kill_soon)
    assert made == greedy(tiny, PROMPT, NUM_TOKENS)


@pytest.mark.parametrize("delay_ms", [1, 45, 75, 85, 95, 105, 115, 130])
@pytest.mark.parametrize("hop", range(3))
async def test_a_hop_dies_while_the_prompt_is_read(
    hop: int, delay_ms: int, tiny: Path, cache: Path
) -> None:
    config = {"prefill_chunk_tokens": 2}
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S, config=config) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        await swarm.start("0-8", latency_s=1.0)
        async with swarm.client() as client:
            loop = asyncio.get_running_loop()
            loop.call_later(delay_ms / 1000, swarm.kill, nodes[hop])
            made, _ = await tokens_of(client)
    assert made == greedy(tiny, PROMPT, NUM_TOKENS)


@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (0, 2), (0, 1, 2)])
async def test_several_hops_die_at_once(pair: tuple[int, ...], tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        await swarm.start("0-8", latency_s=1.0)
        await swarm.start("0-5", latency_s=1.1)

        def kill(count: int) -> None:
            for index in pair if count == 5 else ():
                swarm.kill(nodes[index])

        async with swarm.client() as client:
            made, _ = await tokens_of(client, kill)
    assert made == greedy(tiny, PROMPT, NUM_TOKENS)


async def test_the_replacement_dies_too_and_its_replacement(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start("0-2", "3-5", "6-8")
        await swarm.start("3-5", "3-6", "2-8", latency_s=0.5)
        made, chain = [], None
        async with swarm.client() as client:
            async for event in client.stream(PROMPT, max_tokens=NUM_TOKENS):
                if isinstance(event, ChainChosen):
                    chain = event.chain
                elif isinstance(event, Token):
                    made.append(event.token_id)
                    if chain is not None and len(made) in (3, 5, 7):
                        swarm.kill(swarm.node(chain.hops[1].peer))
                else:
                    done = event
    assert made == greedy(tiny, PROMPT, NUM_TOKENS)
    assert done.failovers == 3


@pytest.mark.parametrize("delay_ms", range(0, 120, 10))
async def test_the_replacement_dies_while_it_is_rebuilt(
    delay_ms: int, tiny: Path, cache: Path
) -> None:
    config = {"prefill_chunk_tokens": 2}
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S, config=config) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        spare, _ = await swarm.start("3-5", "0-8", latency_s=0.5)
        loop = asyncio.get_running_loop()

        def kill(count: int) -> None:
            if count == 4:
                swarm.kill(nodes[1])
                loop.call_later(delay_ms / 1000, swarm.kill, spare)

        async with swarm.client() as client:
            made, _ = await tokens_of(client, kill)
    assert made == greedy(tiny, PROMPT, NUM_TOKENS)


@pytest.mark.parametrize("hop", range(3))
async def test_a_frozen_peer_is_replaced_within_seconds(hop: int, tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        await swarm.start("0-8", latency_s=1.0)
        peer = nodes[hop].peer

        async with swarm.client() as client:
            made, done = await tokens_of(
                client, lambda count: swarm.network.freeze(peer) if count == 4 else None
            )
            swarm.network.thaw(peer)
    assert made == greedy(tiny, PROMPT, NUM_TOKENS)
    assert done.stall_s < 6.0


@pytest.mark.parametrize("pair", [(0, 1), (1, 2)])
async def test_two_hops_that_no_longer_hear_each_other_are_not_neighbours(
    pair: tuple[int, int], tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        await swarm.start("0-8", latency_s=1.0)
        first, second = nodes[pair[0]].peer, nodes[pair[1]].peer

        async with swarm.client() as client:
            made, _ = await tokens_of(
                client, lambda count: swarm.network.silence(first, second) if count == 4 else None
            )
    assert made == greedy(tiny, PROMPT, NUM_TOKENS)


async def test_nobody_left_is_an_error_that_names_the_layers_and_keeps_the_text(
    tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        async with swarm.client() as client:
            with pytest.raises(NoChain, match="no live peer serves layers 3-5") as caught:
                await tokens_of(client, lambda count: swarm.kill(nodes[1]) if count == 6 else None)
    assert list(caught.value.token_ids) == greedy(tiny, PROMPT, 6)
    assert caught.value.text


async def test_a_chain_is_shown_again_after_a_failover(tiny: Path, cache: Path) -> None:
    chains = []
    async with LocalSwarm(tiny, cache=cache, latency_s=LATENCY_S) as swarm:
        nodes = await swarm.start("0-2", "3-5", "6-8")
        await swarm.start("0-8", latency_s=1.0)
        async with swarm.client() as client:
            async for event in client.stream(PROMPT, max_tokens=6):
                if isinstance(event, ChainChosen):
                    chains.append(event)
                    if len(chains) == 1:
                        swarm.kill(nodes[2])
    assert [str(hop.layers) for hop in chains[1].chain.hops] == ["0-2", "3-5", "6-8"]
    assert chains[1].chain.hops[2].peer == swarm.nodes[3].peer
    assert [event.failovers for event in chains] == [0, 1]
