"""Looking on: a client that asks nothing of anybody, reads the directory and hears the gossip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from p2pnode.config import ClientConfig
from p2pnode.errors import PeerError
from p2pnode.gossip.gossip import Gossip
from p2pnode.net.link import Link
from p2pnode.net.links import Links
from p2pnode.swarm.network import Network
from p2pnode.swarm.view import SwarmReader
from p2pnode.tasks import Tasks
from p2pnode.types import PeerHealth, PeerId, SwarmView
from p2pnode.version import SOFTWARE

LISTEN_STEP_S = 0.1
REREAD_S = 3.0
"""How often the directory is read by somebody who looks on: newcomers are seen so late."""


class Watch:
    """What somebody sees who looks on; made by `watching`."""

    def __init__(self, reader: SwarmReader, gossip: Gossip, changed: asyncio.Event) -> None:
        self._reader = reader
        self._gossip = gossip
        self._changed = changed

    async def view(self) -> SwarmView:
        """The swarm now; raises JoinFailed."""
        return await self._reader.view()

    def rtt_s(self, peer: PeerId) -> float | None:
        """Our round trip to a peer, where it was measured."""
        return self._gossip.rtt_s(peer)

    async def settled(self, within_s: float) -> SwarmView:
        """The swarm when gossip has told of everybody in it, or when the time is over."""
        view = await self.view()
        try:
            async with asyncio.timeout(within_s):
                while any(a.peer not in view.health for a in view.announcements):
                    await asyncio.sleep(LISTEN_STEP_S)
                    view = await self.view()
        except TimeoutError:
            pass
        return view

    def wake(self) -> None:
        """Let `next` return now."""
        self._changed.set()

    async def next(self, within_s: float) -> SwarmView:
        """The swarm when gossip tells that somebody died, came back or leaves; or after a time."""
        try:
            async with asyncio.timeout(within_s):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()
        return await self._reader.view(max_age_s=REREAD_S)


class _NoSessions:
    """The events of chain links of somebody who opens none."""

    def on_message(self, link: Link, message: Any) -> None:
        """Nobody sends any."""

    def on_lost(self, link: Link, error: PeerError) -> None:
        """Nothing hangs on it."""


@asynccontextmanager
async def watching(network: Network, config: ClientConfig) -> AsyncIterator[Watch]:
    """Join and look on; raises JoinFailed."""
    changed = asyncio.Event()

    def on_change(peer: PeerId, health: PeerHealth) -> None:
        changed.set()

    async with network.join() as joined:
        gossip = Gossip(
            joined.transport.peer,
            None,
            members=lambda: reader.view(),
            wall_clock=config.wall_clock,
            on_change=on_change,
        )
        reader = SwarmReader(
            joined.directory,
            wall_clock=config.wall_clock,
            monotonic=asyncio.get_running_loop().time,
            health=gossip.snapshot,
        )
        links = Links(
            joined.transport,
            _NoSessions(),
            software=SOFTWARE,
            connect_timeout_s=config.connect_timeout_s,
            heartbeat=(config.heartbeat_interval_s, config.heartbeat_timeout_s),
            control_events=gossip,
        )
        async with links, Tasks() as tasks:
            tasks.start(gossip.run(links), name="gossip")
            yield Watch(reader, gossip, changed)
