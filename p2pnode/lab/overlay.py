"""Kademlia in one process: the real `KademliaDirectory` of every participant, without sockets.

Searches, routing tables, holders, records and their checks are those of the product; a call goes
to its handler after a latency, and its bytes are counted. For a `VirtualTimeLoop`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from p2pnode.dht.backend import P2PContext, P2PDaemonError, PeerID
from p2pnode.dht.ids import to_hivemind
from p2pnode.dht.kademlia import KademliaDirectory
from p2pnode.errors import PeerLost
from p2pnode.lab.peers import announcement_of, part
from p2pnode.net.identity import Identity
from p2pnode.net.transport import StreamHandler
from p2pnode.types import PeerId

EPOCH_S = 1.8e9
RTT_S = 0.04
FIRST_NETWORK = 60
FIRST_GROUP = 256
KNOWN_AT_START = 3
"""Whom a newcomer meets before it explores: its bootstrap peers."""

Handler = Callable[[Any, P2PContext], Awaitable[Any]]


@dataclass(slots=True)
class Traffic:
    """What calls have cost so far."""

    num_calls: int = 0
    num_bytes: int = 0
    """Of requests and answers, without what the transport adds."""


@dataclass(frozen=True, slots=True)
class LabPeer:
    """What hivemind's `PeerInfo` says of a connection."""

    peer_id: PeerID
    addrs: tuple[str, ...]


class Overlay:
    """Who can be called, and what that has cost."""

    def __init__(self, *, rtt_s: float = RTT_S, seed: int = 0) -> None:
        self.traffic = Traffic()
        self.rtt_s = rtt_s
        self.rng = random.Random(f"overlay/{seed}")
        self.handlers: dict[PeerID, dict[str, Handler]] = {}
        self.addresses: dict[PeerID, LabPeer] = {}
        self.connected: dict[PeerID, set[PeerID]] = {}

    def place(self, peer: PeerID, group: int | None = None) -> None:
        """Give a participant an address, in a network of its own or in that group's."""
        number = len(self.addresses)
        high, low = divmod(FIRST_GROUP + number if group is None else group, 256)
        address = f"/ip4/{FIRST_NETWORK + high}.{low}.{number // 256}.{number % 256}/tcp/4001"
        self.addresses[peer] = LabPeer(peer, (address,))
        self.connected[peer] = set()

    def connect(self, one: PeerID, other: PeerID) -> None:
        """Let each see where the other one is."""
        self.connected[one].add(other)
        self.connected[other].add(one)

    async def call(self, caller: PeerID, callee: PeerID, name: str, request: Any) -> Any:
        """One round trip; raises P2PDaemonError when nobody is there."""
        self.traffic.num_calls += 1
        self.connect(caller, callee)
        self.traffic.num_bytes += request.ByteSize()
        await asyncio.sleep(self.rtt_s)
        handler = self.handlers.get(callee, {}).get(name)
        if handler is None:
            raise P2PDaemonError("nobody there")
        answer = await handler(request, P2PContext(name, callee, caller))
        self.traffic.num_bytes += answer.ByteSize()
        return answer


class LabP2P:
    """What the directory uses of hivemind's `P2P`."""

    def __init__(self, overlay: Overlay, peer: PeerId) -> None:
        self._overlay = overlay
        self.peer_id = to_hivemind(peer)

    async def add_protobuf_handler(self, name: str, handler: Handler, *_: Any, **__: Any) -> None:
        """Answer calls of that name."""
        self._overlay.handlers.setdefault(self.peer_id, {})[name] = handler

    async def remove_protobuf_handler(self, name: str, **_: Any) -> None:
        """Do not answer them any more."""
        self._overlay.handlers.get(self.peer_id, {}).pop(name, None)

    async def list_peers(self) -> list[LabPeer]:
        """Those with whom there was a call, and where they are."""
        overlay = self._overlay
        return [overlay.addresses[each] for each in overlay.connected[self.peer_id]]

    async def call_protobuf_handler(self, peer: PeerID, name: str, request: Any, _: Any) -> Any:
        """Call somebody."""
        return await self._overlay.call(self.peer_id, peer, name, request)


class LabDaemon:
    """The transport under a directory: everybody is connected to everybody."""

    def __init__(self, overlay: Overlay, peer: PeerId, addresses: tuple[str, ...]) -> None:
        self.p2p: Any = LabP2P(overlay, peer)
        overlay.place(self.p2p.peer_id)
        self.peer = peer
        self.addresses = addresses

    async def connect(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """Nothing to do."""

    async def open_stream(self, peer: PeerId, protocol: str) -> Any:
        """Refused: directories of the overlay call each other, they open no streams."""
        raise PeerLost(peer, "is simulated: it takes calls, no streams")

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Nobody will ask."""

    async def protect(self, peer: PeerId, is_protected: bool) -> None:
        """Nothing to do."""

    async def wait_closed(self) -> None:
        """Never."""
        await asyncio.Event().wait()


class OverlayDirectory(KademliaDirectory):
    """The real one; where somebody is, everybody knows."""

    @property
    def peer(self) -> PeerId:
        """Whose it is."""
        return self._transport.peer

    async def _introduce(self, peer: PeerId) -> None:
        return

    async def _who_is(self, asked: PeerId, about: PeerId) -> tuple[str, ...]:
        return ()


def directory_of(
    overlay: Overlay, identity: Identity, *, is_client: bool = False
) -> OverlayDirectory:
    """A participant's directory, to be entered with ``async with``."""
    loop = asyncio.get_running_loop()
    return OverlayDirectory(
        LabDaemon(overlay, identity.peer, ()),
        identity.key_pair,
        wall_clock=lambda: EPOCH_S + loop.time(),
        monotonic=loop.time,
        is_client=is_client,
    )


async def join(overlay: Overlay, directory: OverlayDirectory, known: Sequence[PeerId]) -> None:
    """Meet some of those who are there, then find the neighbourhood; as `swarm` does."""
    for peer in overlay.rng.sample(known, min(KNOWN_AT_START, len(known))):
        await directory.meet(peer, ())
    if known:
        await directory.explore()


async def publish_all(directories: Sequence[OverlayDirectory], *, sequence: int = 1) -> None:
    """Everybody announces itself, all at once."""
    now = EPOCH_S + asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        for number, directory in enumerate(directories):
            announcement = announcement_of(
                directory.peer, part(number), issued_at=now, sequence=sequence
            )
            group.create_task(directory.publish(announcement), name="publish")
