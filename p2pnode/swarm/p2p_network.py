"""The real network: our key, our p2pd, the Kademlia directory on it, and joining a swarm."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from p2pnode.config import ClientConfig, SwarmConfig, public_peers
from p2pnode.dht.kademlia import KademliaDirectory
from p2pnode.net.identity import Identity, claim
from p2pnode.net.libp2p_transport import P2PTransport
from p2pnode.net.reach import Reach
from p2pnode.swarm.join import Joiner, JoinSources
from p2pnode.swarm.network import Joined
from p2pnode.swarm.running import shown_as_running
from p2pnode.tasks import Tasks


class P2PNetwork:
    """Joins the swarm of a `SwarmConfig`; may be joined again after the daemon died.

    Key and port stay the same from then on, and ``--join`` becomes a hint among others: a node
    that was in a swarm once finds it again through whomever it knew.
    """

    def __init__(
        self, config: SwarmConfig, *, wall_clock: Callable[[], float], is_client: bool
    ) -> None:
        self._config = config
        self._wall_clock = wall_clock
        self._is_client = is_client
        self._key = config.key
        self._port = config.port
        self._has_joined = False

    @asynccontextmanager
    async def join(self) -> AsyncIterator[Joined]:
        """See `Network.join`."""
        config, met = self._config, asyncio.Event()
        with ExitStack() as files:
            identity = self._identity(files)
            async with (
                self._ground(identity) as ground,
                Reach(
                    ground, kept=config.announce, is_client=self._is_client, on_change=met.set
                ) as transport,
                KademliaDirectory(
                    transport,
                    identity.key_pair,
                    wall_clock=self._wall_clock,
                    monotonic=asyncio.get_running_loop().time,
                    is_client=self._is_client,
                ) as directory,
                Tasks() as tasks,
            ):
                joiner = Joiner(
                    directory,
                    self._sources(),
                    own=identity.peer,
                    wall_clock=self._wall_clock,
                    met=met.set,
                )
                may_found = config.starts_swarm and not (config.join and not self._has_joined)
                has_joined = await joiner.join(may_found=may_found)
                if not self._is_client:
                    # Nodes of this home reach us at any address of this machine.
                    shown = shown_as_running(config.home.run, identity.peer, ground.addresses)
                    files.enter_context(shown)
                    self._port = ground.port
                    await transport.check()  # so that the first announcement is right
                self._has_joined = True
                tasks.start(joiner.run(), name="joiner")
                yield Joined(transport, directory, not has_joined, met, identity.sign)

    def _ground(self, identity: Identity) -> P2PTransport:
        config = self._config
        return P2PTransport(
            identity,
            config.home.run,
            host=config.host,
            port=self._port,
            announce=config.announce,
            is_client=self._is_client,
        )

    def _identity(self, files: ExitStack) -> Identity:
        if self._is_client and self._key is None:
            return Identity.ephemeral()
        identity = files.enter_context(claim(self._config.home.keys, self._key))
        self._key = identity.path
        return identity

    def _sources(self) -> JoinSources:
        config = self._config
        if config.join and not self._has_joined:
            return JoinSources(home=config.home.folder, explicit=config.join)
        public = (*config.join, *public_peers(Path.cwd()))
        return JoinSources(home=config.home.folder, public=public)


def node_network(config: SwarmConfig, *, wall_clock: Callable[[], float] = time.time) -> P2PNetwork:
    """The network of a serving or bootstrap node."""
    return P2PNetwork(config, wall_clock=wall_clock, is_client=False)


def client_network(config: ClientConfig) -> P2PNetwork:
    """The network of a client, which starts no swarm and is dialled only when it asks for that."""
    return P2PNetwork(config.swarm, wall_clock=config.wall_clock, is_client=True)
