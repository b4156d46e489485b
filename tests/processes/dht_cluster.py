"""Several directories in this process, each on a p2pd of its own."""

from __future__ import annotations

import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from p2pnode.dht.kademlia import KademliaDirectory
from p2pnode.net.identity import Identity
from p2pnode.net.libp2p_transport import P2PTransport
from p2pnode.types import Announcement, PeerId
from tests.support.announcements import announcement, key_pair


@dataclass(frozen=True)
class Node:
    """A transport with its directory, and the key of both."""

    number: int
    transport: P2PTransport
    directory: KademliaDirectory

    @property
    def peer(self) -> PeerId:
        return self.transport.peer

    def announcement(self, **changes: object) -> Announcement:
        """A good one of this node, issued now."""
        now = time.time()
        dated = {"sequence": round(now * 1000), "issued_at": now, "expires_at": now + 60.0}
        at = {"addresses": self.transport.addresses}
        return announcement(key_pair(self.number), **{**at, **dated, **changes})


class Cluster:
    """Starts nodes; all end with the block."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self._folder = folder
        self._stack = stack
        # Other keys than a cluster that runs beside us: it may get a port that one of ours had,
        # and who answers there with a key that we know would be taken in.
        self._number = zlib.crc32(str(folder).encode())

    async def transport(self, *, is_client: bool = False) -> tuple[int, P2PTransport]:
        """A p2pd and the number of its key."""
        self._number += 1
        number = self._number
        transport = P2PTransport(
            Identity(key_pair(number)), self._folder / "run", host="127.0.0.1", is_client=is_client
        )
        return number, await self._stack.enter_async_context(transport)

    async def node(
        self,
        *friends: Node,
        is_client: bool = False,
        wall_clock: Callable[[], float] = time.time,
    ) -> Node:
        """A node that has met these."""
        number, transport = await self.transport(is_client=is_client)
        directory = KademliaDirectory(
            transport,
            key_pair(number),
            wall_clock=wall_clock,
            monotonic=time.monotonic,
            is_client=is_client,
        )
        await self._stack.enter_async_context(directory)
        for friend in friends:
            await directory.meet(friend.peer, friend.transport.addresses)
        if friends:
            await directory.explore()
        return Node(number, transport, directory)


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        yield Cluster(folder, stack)


async def seen_by(node: Node) -> set[PeerId]:
    return {each.peer for each in await node.directory.announcements()}
