"""One participant of a `LocalSwarm`, as its `Network`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from p2pnode.dht.memory import MemoryDirectory
from p2pnode.lab.conditions import Conditions, LabTransport
from p2pnode.net.ground import Ground
from p2pnode.net.identity import Identity
from p2pnode.net.reach import Reach
from p2pnode.swarm.network import Joined
from p2pnode.tasks import Tasks

if TYPE_CHECKING:
    from p2pnode.lab.swarm import LocalSwarm


class LabMember:
    """One participant's `Network` in memory."""

    def __init__(
        self, swarm: LocalSwarm, identity: Identity, conditions: Conditions | None = None
    ) -> None:
        self._swarm = swarm
        self._identity = identity
        self._conditions = conditions

    @asynccontextmanager
    async def join(self) -> AsyncIterator[Joined]:
        """See `Network.join`."""
        swarm, identity = self._swarm, self._identity
        directory = MemoryDirectory(swarm.dht, identity.key_pair)
        met, sign = asyncio.Event(), identity.sign
        async with AsyncExitStack() as stack:
            ground: Ground = await stack.enter_async_context(swarm.network.transport(identity.peer))
            entrance = None
            if swarm.club is not None:
                serves = self._conditions is not None
                entrance = swarm.club.entrance(identity, swarm.wall_clock, serves=serves)
                ground = entrance.gate(ground)
            transport = await stack.enter_async_context(Reach(ground, on_change=met.set))
            inside = None
            if entrance is not None:
                inside = entrance.inside(transport)
                tasks = await stack.enter_async_context(Tasks())
                tasks.start(inside.teller.run(), name="tidings")
            if self._conditions is None:
                yield Joined(transport, directory, met=met, sign=sign, inside=inside)
            else:
                shaped = LabTransport(transport, self._conditions)
                yield Joined(shaped, directory, met=met, sign=sign, inside=inside)
