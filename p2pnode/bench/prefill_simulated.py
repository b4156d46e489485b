"""The first token of `bench.prefill` where each hop has a machine of its own: simulated.

The real client and nodes in this process, on virtual time and an in-memory network: a forward takes
what one was measured to take alone, lines have their delay and their rate, and nothing else takes
time. On one machine of few processors the hops of a real chain share them.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

from p2pnode.bench.bounds import Costs
from p2pnode.bench.models import make_thin
from p2pnode.client.client import Client
from p2pnode.client.events import Token
from p2pnode.errors import LocalError
from p2pnode.lab.conditions import compute_whole
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.lab.virtual_time import run_virtual
from p2pnode.lab.wan.sessions import MeasuringClient
from p2pnode.types import LayerRange

HEALTH_WITHIN_S = 10.0
"""By then a client has heard how fast the hops are."""


def simulate(
    folder: Path, costs: Costs, hidden_size: int, prompt: tuple[int, ...]
) -> tuple[float, float]:
    """(whole, pipelined): virtual seconds to the first token. Blocks, for seconds.

    costs: what forwards take, the lines' delay, and their rate
    """
    model = make_thin(folder / "simulated", costs.num_hops, hidden_size)
    pipelined_s = run_virtual(_first_token_s(model, costs, prompt, 0))
    compute_whole(is_whole=True)
    try:
        return run_virtual(_first_token_s(model, costs, prompt, len(prompt))), pipelined_s
    finally:
        compute_whole(is_whole=False)


async def _first_token_s(
    model: Path, costs: Costs, prompt: tuple[int, ...], chunk_tokens: int
) -> float:
    """Of a client that is connected and knows the hops; 0: chunks of its own choice."""
    config: dict[str, Any] = {"keeps_prefixes": False}
    if chunk_tokens:
        config["prefill_chunk_tokens"] = chunk_tokens
    async with LocalSwarm(
        model,
        cache=model.parent,
        dtype="bfloat16",
        latency_s=costs.delay_s,
        bytes_per_s=costs.up_bytes_per_s,
        config=config,
    ) as swarm:
        for hop in range(costs.num_hops):
            layers = LayerRange(hop, hop + 1)
            swarm.add(layers, compute_s=costs.fixed_s, token_s=costs.token_s)
        for node in swarm.nodes:
            await node.is_serving.wait()
        async with swarm.client(MeasuringClient, chunk_tokens=chunk_tokens) as client:
            await _asked_s(client, prompt)
            await asyncio.sleep(HEALTH_WITHIN_S)
            return await _asked_s(client, prompt)


async def _asked_s(client: Client, prompt: tuple[int, ...]) -> float:
    clock = asyncio.get_running_loop().time
    began = clock()
    async with aclosing(client.stream(prompt, max_tokens=1)) as events:
        async for event in events:
            if isinstance(event, Token):
                return clock() - began
    raise LocalError("an answer without a token")
