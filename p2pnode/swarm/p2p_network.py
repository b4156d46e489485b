"""The real network: our key, our p2pd, the Kademlia directory on it, and joining a swarm."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

from p2pnode.config import ClientConfig, SwarmConfig
from p2pnode.dht.admits import everybody
from p2pnode.dht.kademlia import KademliaDirectory
from p2pnode.errors import BadRequest
from p2pnode.net.ground import Ground
from p2pnode.net.identity import Identity, claim
from p2pnode.net.lan import Lan
from p2pnode.net.libp2p_transport import P2PTransport
from p2pnode.net.reach import Reach
from p2pnode.swarm.inside import Entrance, Inside
from p2pnode.swarm.join import Joiner
from p2pnode.swarm.membership import Membership, enter
from p2pnode.swarm.network import Joined
from p2pnode.swarm.running import shown_as_running
from p2pnode.swarm.sources import JoinSources, sources
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
        """See `Network.join`; raises BadInvite, too."""
        config, met = self._config, asyncio.Event()
        membership = self._membership()
        with ExitStack() as files:
            identity = self._identity(files)
            async with AsyncExitStack() as stack:
                daemon = await stack.enter_async_context(self._daemon(identity))
                entrance = self._entrance(membership, identity)
                ground = daemon if entrance is None else entrance.gate(daemon)
                transport = await stack.enter_async_context(self._reach(ground, met))
                inside = None if entrance is None else entrance.inside(transport)
                directory = await stack.enter_async_context(
                    self._directory(transport, identity, inside)
                )
                lan = await self._look_around(stack)
                tasks = await stack.enter_async_context(Tasks())
                if inside is not None:
                    tasks.start(inside.teller.run(), name="tidings")
                joiner = Joiner(
                    directory,
                    self._sources(membership, lan),
                    own=identity.peer,
                    wall_clock=self._wall_clock,
                    met=met.set,
                )
                may_found = config.starts_swarm and not (config.join and not self._has_joined)
                has_joined = await joiner.join(may_found=may_found)
                if not self._is_client:
                    # Nodes of this home reach us at any address of this machine.
                    run = self._folder(membership) / "run"
                    files.enter_context(shown_as_running(run, identity.peer, daemon.addresses))
                    self._port = daemon.port
                    await transport.check()  # so that the first announcement is right
                    if lan is not None:
                        await lan.show(identity.peer, daemon.addresses)
                self._has_joined = True
                tasks.start(joiner.run(), name="joiner")
                yield Joined(transport, directory, not has_joined, met, identity.sign, inside)

    # --- what it is made of

    def _sources(self, membership: Membership | None, lan: Lan | None) -> JoinSources:
        nearby = tuple if lan is None else lan.found
        return sources(self._config, membership, has_joined=self._has_joined, nearby=nearby)

    async def _look_around(self, stack: AsyncExitStack) -> Lan | None:
        """Who shows itself on this network, where that was asked for."""
        config = self._config
        if not config.lan:
            return None
        if config.invite:
            raise BadRequest("a private swarm is not shown on the network; leave out --lan")
        everywhere = config.host in ("0.0.0.0", "::")
        lan = await stack.enter_async_context(Lan(() if everywhere else (config.host,)))
        if not config.join:
            await lan.look()
        return lan

    def _daemon(self, identity: Identity) -> P2PTransport:
        config = self._config
        return P2PTransport(
            identity,
            config.home.run,
            host=config.host,
            port=self._port,
            announce=config.announce,
            is_client=self._is_client,
        )

    def _reach(self, ground: Ground, met: asyncio.Event) -> Reach:
        kept = self._config.announce
        return Reach(ground, kept=kept, is_client=self._is_client, on_change=met.set)

    def _directory(
        self, transport: Reach, identity: Identity, inside: Inside | None
    ) -> KademliaDirectory:
        return KademliaDirectory(
            transport,
            identity.key_pair,
            wall_clock=self._wall_clock,
            monotonic=asyncio.get_running_loop().time,
            is_client=self._is_client,
            admits=everybody if inside is None else inside.gate.admits,
        )

    def _membership(self) -> Membership | None:
        if not self._config.invite:
            return None
        return enter(self._config.home, self._config.invite, now=self._wall_clock())

    def _entrance(self, membership: Membership | None, identity: Identity) -> Entrance | None:
        if membership is None:
            return None
        if not self._is_client:
            membership.check_serves()
        guard = membership.guard(identity, wall_clock=self._wall_clock)
        return Entrance(membership.name, guard, membership.news_file)

    def _identity(self, files: ExitStack) -> Identity:
        if self._is_client and self._key is None:
            return Identity.ephemeral()
        identity = files.enter_context(claim(self._config.home.keys, self._key))
        self._key = identity.path
        return identity

    def _folder(self, membership: Membership | None) -> Path:
        """Where a swarm's last good peers are kept, and its nodes of this home show themselves."""
        return self._config.home.folder if membership is None else membership.folder


def node_network(config: SwarmConfig, *, wall_clock: Callable[[], float] = time.time) -> P2PNetwork:
    """The network of a serving or bootstrap node."""
    return P2PNetwork(config, wall_clock=wall_clock, is_client=False)


def client_network(config: ClientConfig) -> P2PNetwork:
    """The network of a client, which starts no swarm and is dialled only when it asks for that."""
    return P2PNetwork(config.swarm, wall_clock=config.wall_clock, is_client=True)
