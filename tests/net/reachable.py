"""Participants of a network in memory, some of whom cannot be dialled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from p2pnode.net.memory import Line, MemoryNetwork, fake_peer_id
from p2pnode.net.reach import Reach

LATENCY_S = 0.02
ROUND_TRIP_S = 2 * LATENCY_S
DIAL_S = 3 * ROUND_TRIP_S
ASK_S = 2 * ROUND_TRIP_S
"""Opening a stream, the question and the answer."""
NOBODY = fake_peer_id(99)


def now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def peers(*hidden: bool) -> AsyncIterator[tuple[MemoryNetwork, list[Reach]]]:
    """Participants, of whom those marked cannot be dialled; none is connected."""
    network = MemoryNetwork(line=Line(latency_s=LATENCY_S))
    async with AsyncExitStack() as stack:
        made = []
        for number, is_hidden in enumerate(hidden):
            peer = fake_peer_id(number)
            ground = await stack.enter_async_context(network.transport(peer))
            made.append(await stack.enter_async_context(Reach(ground)))
            if is_hidden:
                network.hide(peer)
        yield network, made
