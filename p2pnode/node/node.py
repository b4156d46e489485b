"""A node from the top: join, choose the model, load the block, serve it, heal, leave.

Everything that a `p2pnode serve` does happens in `Node.run`; a `p2pnode bootstrap` is the same
without a model.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from importlib import import_module
from typing import TYPE_CHECKING

from p2pnode.config import NodeConfig
from p2pnode.errors import DaemonDied
from p2pnode.node.events import OnEvent
from p2pnode.swarm.model import only_model
from p2pnode.swarm.network import Joined, Network
from p2pnode.swarm.view import SwarmReader
from p2pnode.types import LayerRange

if TYPE_CHECKING:
    from p2pnode.node.server import BlockServer

log = logging.getLogger(__name__)

MAX_HEALS = 5
"""More deaths of the daemon than this within `HEAL_WINDOW_S` end the node."""
HEAL_WINDOW_S = 60.0


class Node:
    """Serves a range of layers until cancelled."""

    def __init__(self, config: NodeConfig, network: Network, on_event: OnEvent) -> None:
        self._config = config
        self._network = network
        self._on_event = on_event
        self._server: BlockServer | None = None
        self._leaving = asyncio.Event()

    def leave(self) -> bool:
        """Let the sessions move to others, then end `run`; False when nothing is served yet."""
        self._leaving.set()
        return self._server is not None

    async def run(self) -> None:
        """Serve until cancelled, or until `leave` has done its work.

        When the daemon dies, the network is built anew and the block, which stays loaded, is
        announced again; sessions fail over meanwhile. Raises LocalError, BadRequest, JoinFailed.
        """
        deaths: deque[float] = deque(maxlen=MAX_HEALS)
        if self._config.layers is not None:
            # The families' code takes seconds to import: not while others wait for our answers.
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, import_module, "p2pnode.node.loading")
        clock = asyncio.get_running_loop().time
        while self._server is None or not self._leaving.is_set():
            try:
                async with self._network.join() as joined:
                    self._on_event("listening", _listening(joined))
                    await self._serve(joined)
            except DaemonDied as error:
                if len(deaths) == MAX_HEALS and clock() - deaths[0] < HEAL_WINDOW_S:
                    raise
                deaths.append(clock())
                log.warning("network died, healing: error=%s", error)

    async def _serve(self, joined: Joined) -> None:
        if self._config.layers is None:  # a bootstrap node
            await joined.transport.wait_closed()
            return
        if self._server is None:
            self._server = await self._prepare(joined, self._config.layers)
        await self._server.run(joined)

    async def _prepare(self, joined: Joined, layers: LayerRange) -> BlockServer:
        """Choose the model and load our part of it."""
        from p2pnode.node.loading import load_block
        from p2pnode.node.server import BlockServer

        config, loop = self._config, asyncio.get_running_loop()
        name = config.model
        if name is None:
            reader = SwarmReader(
                joined.directory, wall_clock=config.wall_clock, monotonic=loop.time
            )
            name = only_model(await reader.view())

        def progress(what: str, done_bytes: int, total_bytes: int) -> None:
            fields = {"what": what, "done_bytes": done_bytes, "total_bytes": total_bytes}
            loop.call_soon_threadsafe(self._on_event, "loading", fields)

        block, figures = await loop.run_in_executor(
            None, load_block, config, name, layers, progress
        )
        return BlockServer(block, figures, config, self._on_event, self._leaving)


def _listening(joined: Joined) -> dict[str, object]:
    listening: dict[str, object] = {
        "peer": joined.transport.peer,
        "addresses": list(joined.transport.addresses),
        "founded": joined.has_founded,
    }
    return listening if joined.inside is None else {**listening, "swarm": joined.inside.name}
