"""Who gets into a private swarm: every door of a node, tried with everything but a good warrant.

The node is the real thing, gate, guard, reach, directory, links and teller, on the in-memory
network; calls of the directory reach its handlers as p2pd would hand them over, with the caller's
proven peer id. For a `VirtualTimeLoop`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from p2pnode.dht.backend import DHTID, P2PDaemonError, dht_pb2
from p2pnode.dht.ids import node_id_of, to_hivemind
from p2pnode.dht.kademlia import KademliaDirectory
from p2pnode.dht.records import key_of as directory_key
from p2pnode.dht.records import seal_announcement, shard_of, subkey_of
from p2pnode.dht.whois import WHOIS
from p2pnode.errors import BadWarrant, P2PNodeError, PeerError, Unwelcome
from p2pnode.lab.members import Founder
from p2pnode.lab.overlay import EPOCH_S, LabP2P, Overlay
from p2pnode.lab.peers import announcement_of, part
from p2pnode.net.gate import key_of, private
from p2pnode.net.hello import read_hello, write_hello
from p2pnode.net.identity import Identity
from p2pnode.net.links import Links
from p2pnode.net.memory import MemoryNetwork, fake_identity
from p2pnode.net.reach import Reach
from p2pnode.net.reach_messages import REACH
from p2pnode.net.transport import ByteStream
from p2pnode.swarm.inside import Entrance, Inside
from p2pnode.swarm.tidings import TIDINGS
from p2pnode.tasks import Tasks
from p2pnode.trust.grants import Right, Warrant
from p2pnode.trust.greeting import NONCE_BYTES, Occasion, read_greeting
from p2pnode.trust.guard import Guard
from p2pnode.trust.news import News
from p2pnode.types import PeerId
from p2pnode.wire.messages import CHAIN, CONTROL

STREAMS = (CHAIN, CONTROL, REACH, WHOIS, TIDINGS)
CALLS = ("ping", "store", "find", "fetch")
DOORS = (*STREAMS, *CALLS)

CASES = ("none", "public", "expired", "revoked", "used", "other swarm", "not theirs", "replayed")
"""What one shows who is not to be let in anywhere."""
LESSER = ("store",)
"""The doors that are closed to those who may only use the swarm."""

HOST, MEMBER, INTRUDER = 0, 1, 2
ANSWER_WITHIN_S = 10.0

Show = Callable[[str, bytes], tuple[bytes, bytes]]
"""(protocol, nonce): the nonce and the credentials of the first frame."""


@dataclass
class Silent:
    """Nobody's business (`LinkEvents`)."""

    heard: list[object] = field(default_factory=list)

    def on_message(self, link: object, message: object) -> None:
        """Keep it."""
        self.heard.append(message)

    def on_lost(self, link: object, error: PeerError) -> None:
        """So what."""


@dataclass(slots=True)
class Lab:
    """One swarm's private node, and the way to it."""

    founder: Founder
    network: MemoryNetwork
    overlay: Overlay
    news: News
    host: Inside
    directory: KademliaDirectory
    links: Links

    @property
    def peer(self) -> PeerId:
        """Of the node."""
        return self.host.gate.peer

    def now(self) -> float:
        """The wall clock."""
        return EPOCH_S + asyncio.get_running_loop().time()


@asynccontextmanager
async def private_node(founder: Founder | None = None) -> AsyncIterator[Lab]:
    """A node that serves in a private swarm of its own."""
    founder, loop = founder or Founder(), asyncio.get_running_loop()
    network, overlay, identity = MemoryNetwork(), Overlay(), fake_identity(HOST)
    news = News(founder.warrant.swarm)

    def clock() -> float:
        return EPOCH_S + loop.time()

    guard = Guard(founder.grant(identity), identity.sign, news, wall_clock=clock)
    entrance = Entrance("lab", guard)
    async with network.transport(identity.peer) as ground:
        ground.p2p = LabP2P(overlay, identity.peer)
        overlay.place(ground.p2p.peer_id)
        gate = entrance.gate(ground)
        async with Reach(gate) as transport:
            inside = entrance.inside(transport)
            directory = KademliaDirectory(
                transport,
                identity.key_pair,
                wall_clock=clock,
                monotonic=loop.time,
                admits=gate.admits,
            )
            links = Links(
                transport, Silent(), software="lab/1", connect_timeout_s=3.0, heartbeat=(0.5, 2.0)
            )
            async with directory, links, Tasks() as tasks:
                await links.serve()
                tasks.start(inside.teller.run(), name="tidings")
                await asyncio.sleep(0)
                yield Lab(founder, network, overlay, news, inside, directory, links)


# --- those outside


@dataclass(frozen=True, slots=True)
class Intruder:
    """Somebody at the door, and what is shown there."""

    lab: Lab
    identity: Identity
    transport: Any
    show: Show

    async def enters(self, door: str) -> bool:
        """Whether the node has to do with us there."""
        if door in STREAMS:
            return await self._greets(door)
        await self._greets(WHOIS)  # members are known by their first stream
        return await self._calls(door)

    async def _greets(self, protocol: str) -> bool:
        lab, nonce = self.lab, os.urandom(NONCE_BYTES)
        nonce, credentials = self.show(protocol, nonce)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                stream = await self._open(protocol)
                write_hello(stream, nonce, credentials=credentials)
                hello = await read_hello(stream)
        except (TimeoutError, PeerError):
            return False
        # A word to one who is not of the swarm would be too much, whatever it says.
        swarm = lab.founder.warrant.swarm
        own = key_of(self.identity.peer)
        occasion = Occasion(swarm, protocol, key_of(lab.peer), own, hello.nonce, nonce)
        try:
            read_greeting(occasion, hello.credentials)
        except Unwelcome:
            return False
        except BadWarrant:
            return True
        return True

    async def _open(self, protocol: str) -> ByteStream:
        lab = self.lab
        await self.transport.connect(lab.peer, lab.network.transports[lab.peer].addresses)
        stream: ByteStream = await self.transport.open_stream(lab.peer, private(protocol))
        return stream

    async def _calls(self, door: str) -> bool:
        lab, caller = self.lab, to_hivemind(self.identity.peer)
        info = dht_pb2.NodeInfo(node_id=node_id_of(caller).to_bytes())
        request = getattr(self, f"_{door}_request")(info)
        name = f"P2PNodeDirectory2.rpc_{door}"
        try:
            answer = await lab.overlay.call(caller, to_hivemind(lab.peer), name, request)
        except (P2PNodeError, P2PDaemonError):
            return False
        return door != "store" or True in answer.store_ok

    def _ping_request(self, info: Any) -> Any:
        return dht_pb2.PingRequest(peer=info)

    def _find_request(self, info: Any) -> Any:
        keys = [DHTID.generate(source=directory_key(0)).to_bytes()]
        return dht_pb2.FindRequest(peer=info, keys=keys)

    def _fetch_request(self, info: Any) -> Any:
        return dht_pb2.FindRequest(peer=info, keys=[bytes(8)])

    def _store_request(self, info: Any) -> Any:
        peer, now = self.identity.peer, self.lab.now()
        announcement = announcement_of(peer, part(0), issued_at=now, sequence=1)
        key = DHTID.generate(source=directory_key(shard_of(peer))).to_bytes()
        return dht_pb2.StoreRequest(
            peer=info,
            keys=[key],
            subkeys=[subkey_of(announcement).encode()],
            values=[seal_announcement(self.identity.key_pair, announcement)],
            expiration_time=[announcement.expires_at],
            in_cache=[False],
        )


@asynccontextmanager
async def intruder(lab: Lab, case: str, *, number: int = INTRUDER) -> AsyncIterator[Intruder]:
    """Somebody who shows what the case says; ``use`` and ``serve`` are good warrants."""
    identity = fake_identity(number)
    lab.overlay.place(to_hivemind(identity.peer))
    async with lab.network.transport(identity.peer) as transport:
        yield Intruder(lab, identity, transport, _shower(lab, case, identity))


def _shower(lab: Lab, case: str, identity: Identity) -> Show:
    founder, host, member = lab.founder, key_of(lab.peer), fake_identity(MEMBER)
    own = key_of(identity.peer)

    def as_member(who: Identity, warrant: Warrant, sign: Callable[[bytes], bytes]) -> Show:
        guard = Guard(warrant, sign, News(warrant.swarm), wall_clock=lab.now)
        return lambda protocol, nonce: (nonce, guard.greet(host, protocol, nonce))

    match case:
        case "none":
            return lambda protocol, nonce: (nonce, b"")
        case "public":
            return lambda protocol, nonce: (b"", b"public")
        case "expired":
            return as_member(identity, founder.grant(identity, expires_in_s=-1), identity.sign)
        case "revoked":
            lab.news.add(founder.revoke(own), lab.now())
            return as_member(identity, founder.grant(identity), identity.sign)
        case "used":
            invite = fake_identity(800)
            lab.news.claim(founder.claimed(invite, member), lab.now())
            return as_member(identity, founder.claimed(invite, identity), identity.sign)
        case "other swarm":
            return as_member(identity, Founder(901).grant(identity), identity.sign)
        case "not theirs":
            return as_member(identity, founder.grant(member), identity.sign)
        case "replayed":
            honest = as_member(member, founder.grant(member), member.sign)
            heard: dict[str, tuple[bytes, bytes]] = {}
            return lambda protocol, nonce: heard.setdefault(protocol, honest(protocol, nonce))
        case _:
            warrant = founder.grant(identity, Right[case.upper()])
            return as_member(identity, warrant, identity.sign)


async def strangers_in() -> dict[tuple[str, str], bool]:
    """Whether somebody got in, by (door, what was shown): `DOORS` x `CASES`, and lesser rights."""
    tried: dict[tuple[str, str], bool] = {}
    for case in (*CASES, "use"):
        async with private_node() as lab, intruder(lab, case) as outside:
            for door in LESSER if case == "use" else DOORS:
                tried[door, case] = await outside.enters(door)
    return tried
