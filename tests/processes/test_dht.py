"""The directory on Kademlia: real p2pd processes on loopback, several nodes in this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from p2pnode.dht.backend import DHTID, MSGPackSerializer, P2PContext, dht_pb2
from p2pnode.dht.kademlia import ClockSkew, KademliaDirectory
from p2pnode.dht.records import ALL_KEYS, key_of, seal_announcement, shard_of, subkey_of
from p2pnode.dht.shards import node_id_of, pack_shard, to_hivemind
from p2pnode.dht.whois import WHOIS
from p2pnode.errors import BadRecord, JoinFailed, PeerError
from p2pnode.net.identity import Identity
from p2pnode.net.libp2p_transport import P2PTransport
from p2pnode.net.libraries import hivemind
from p2pnode.net.transport import ByteStream
from p2pnode.swarm.join import Joiner, JoinSources
from p2pnode.types import Announcement, PeerId
from tests.dht.test_guard import nested
from tests.support.announcements import announcement, key_pair

pytestmark = pytest.mark.processes


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
        self._num_started = 0

    async def transport(self, *, is_client: bool = False) -> tuple[int, P2PTransport]:
        """A p2pd and the number of its key."""
        self._num_started += 1
        number = self._num_started
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


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    return tmp_path


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        yield Cluster(folder, stack)


async def seen_by(node: Node) -> set[PeerId]:
    return {each.peer for each in await node.directory.announcements()}


async def test_announcements_are_found_by_all_and_withdrawn_for_all(folder: Path) -> None:
    async with cluster(folder) as start:
        first = await start.node()
        others = [await start.node(first) for _ in range(2)]
        client = await start.node(first, is_client=True)
        nodes = [first, *others]
        for node in nodes:
            await node.directory.publish(node.announcement())
        for reader in (*nodes, client):
            assert await seen_by(reader) == {node.peer for node in nodes}
        assert set(others[0].directory.peers) == {first.peer, others[1].peer}, "not the client"

        await others[0].directory.publish(
            others[0].announcement(is_withdrawn=True, expires_at=time.time() + 61)
        )
        for reader in (*nodes, client):
            assert await seen_by(reader) == {first.peer, others[1].peer}


async def test_only_the_owner_writes_and_nothing_old_comes_back(folder: Path) -> None:
    async with cluster(folder) as start:
        owner = await start.node()
        holder = await start.node(owner)
        stranger = await start.node(owner, holder)
        old = owner.announcement()
        new = owner.announcement(sequence=old.sequence + 5, expires_at=old.expires_at + 5)
        await owner.directory.publish(new)
        key, subkey = key_of(shard_of(owner.peer)), subkey_of(new)
        bad = {
            "forged": (seal_announcement(key_pair(stranger.number), new), new.expires_at),
            "unsigned": (b"x" * 200, new.expires_at),
            "replayed": (seal_announcement(key_pair(owner.number), old), old.expires_at),
            "prolonged": (seal_announcement(key_pair(owner.number), new), new.expires_at + 9),
            "too large": (b"x" * 5000, new.expires_at),
        }
        for name, (value, expires_at) in bad.items():
            with pytest.raises(BadRecord, match="all 2 holders refused"):
                await stranger.directory.put(key, subkey, value, expires_at)
            (found,) = await stranger.directory.announcements()
            assert found == new, name


class P2PNodeDirectory1(hivemind.p2p.ServicerBase):  # type: ignore[misc]
    """A holder that lies: forged records, an expiry beyond all others, nodes that are not there."""

    def __init__(self, number: int, transport: P2PTransport, victim: Announcement) -> None:
        self.transport = transport
        self.forged = seal_announcement(key_pair(number), victim)
        self.victim = victim
        self.num_asked = 0
        self.info = dht_pb2.NodeInfo(node_id=node_id_of(to_hivemind(transport.peer)).to_bytes())

    async def rpc_ping(
        self, request: dht_pb2.PingRequest, context: P2PContext
    ) -> dht_pb2.PingResponse:
        return dht_pb2.PingResponse(peer=self.info, dht_time=time.time(), available=True)

    async def rpc_store(
        self, request: dht_pb2.StoreRequest, context: P2PContext
    ) -> dht_pb2.StoreResponse:
        return dht_pb2.StoreResponse(peer=self.info, store_ok=[True] * len(request.keys))

    async def rpc_find(
        self, request: dht_pb2.FindRequest, context: P2PContext
    ) -> dht_pb2.FindResponse:
        self.num_asked += 1
        shard = pack_shard([(subkey_of(self.victim), self.forged, self.victim.expires_at + 1000)])
        assert shard is not None
        result = dht_pb2.FindResult(
            type=dht_pb2.FOUND_DICTIONARY,
            value=MSGPackSerializer.dumps(shard.value),
            expiration_time=float("inf"),
            nearest_node_ids=[key[:20].ljust(20, b"\0") for key in request.keys],
            nearest_peer_ids=[to_hivemind(self.transport.peer).to_bytes() for _ in request.keys],
        )
        results = [result for _ in request.keys]
        return dht_pb2.FindResponse(peer=self.info, results=results)


async def _know_nothing(stream: ByteStream) -> None:
    await stream.read_exactly(2)
    answer = b"\x82\xa4kind\xa5known\xa9addresses\x90"
    stream.write(len(answer).to_bytes(2, "big") + answer)
    await stream.read_exactly(1000)


async def test_a_lying_holder_hides_nothing_and_invents_nothing(folder: Path) -> None:
    async with cluster(folder) as start:
        honest = await start.node()
        await honest.directory.publish(honest.announcement())
        number, transport = await start.transport()
        liar = P2PNodeDirectory1(number, transport, honest.announcement(model="forged"))
        await liar.add_p2p_handlers(transport.p2p)
        await transport.serve(WHOIS, _know_nothing)
        client = await start.node(honest, is_client=True)
        await client.directory.meet(transport.peer, transport.addresses)
        (found,) = await client.directory.announcements()
        assert found.model == "stories"
        assert liar.num_asked > 0
        await liar.remove_p2p_handlers(transport.p2p)


async def test_a_hostile_message_does_not_end_a_node(folder: Path) -> None:
    async with cluster(folder) as start:
        node = await start.node()
        friend = await start.node(node)
        _, stranger = await start.transport()
        await stranger.connect(node.peer, node.transport.addresses)
        key = DHTID.generate(source=ALL_KEYS[0]).to_bytes()
        for subkey, value in ((b"", nested(5000, 0x50)), (nested(5000), b"x"), (b"\xc1", b"")):
            request = dht_pb2.StoreRequest(
                keys=[key], subkeys=[subkey], values=[value], expiration_time=[1.0], in_cache=[0]
            )
            async with asyncio.timeout(3):
                answer = await stranger.p2p.call_protobuf_handler(
                    to_hivemind(node.peer),
                    "P2PNodeDirectory1.rpc_store",
                    request,
                    dht_pb2.StoreResponse,
                )
            assert list(answer.store_ok) == [False]
        await node.directory.publish(node.announcement())
        assert await seen_by(friend) == {node.peer}


async def test_a_clock_that_is_wrong_is_told_by_how_much(folder: Path) -> None:
    async with cluster(folder) as start:
        node = await start.node()
        for off_s, words in ((10.0, r"10\.0 s ahead of"), (-7.5, r"7\.5 s behind")):
            other = await start.node(wall_clock=lambda off_s=off_s: time.time() + off_s)  # type: ignore[misc]
            with pytest.raises(ClockSkew, match=words):
                await other.directory.meet(node.peer, node.transport.addresses)
            assert other.directory.peers == ()


async def test_a_dead_or_frozen_bootstrap_peer_beside_a_living_one_is_no_obstacle(
    folder: Path,
) -> None:
    async with cluster(folder) as start:
        living, frozen, dead = [await start.node() for _ in range(3)]
        addresses = [node.transport.addresses for node in (dead, frozen, living)]
        os.kill(frozen.transport.daemon_pid, signal.SIGSTOP)
        os.kill(dead.transport.daemon_pid, signal.SIGKILL)
        try:
            newcomer = await start.node()
            joiner = joiner_of(newcomer, folder, *(each for some in addresses for each in some))
            started_at = time.monotonic()
            assert await joiner.join(may_found=False)
            took_s = time.monotonic() - started_at
            assert newcomer.directory.peers == (living.peer,)
            assert took_s < 3.0
            alone = joiner_of(await start.node(), folder, *frozen.transport.addresses)
            started_at = time.monotonic()
            with pytest.raises(JoinFailed, match="--join"):
                await alone.join(may_found=True)
            assert time.monotonic() - started_at < 3.5
        finally:
            os.kill(frozen.transport.daemon_pid, signal.SIGCONT)


def joiner_of(node: Node, home: Path, *explicit: str, public: tuple[str, ...] = ()) -> Joiner:
    sources = JoinSources(home=home, explicit=explicit, public=public)
    return Joiner(node.directory, sources, own=node.peer, wall_clock=time.time)


async def test_islands_that_meet_become_one_swarm(folder: Path) -> None:
    async with cluster(folder) as start:
        west = await start.node()
        west_friend = await start.node(west)
        east = await start.node()
        east_friend = await start.node(east)
        islanders = [west, west_friend, east, east_friend]
        for node in islanders:
            await node.directory.publish(node.announcement())
        assert await seen_by(west_friend) == {west.peer, west_friend.peer}

        merged = asyncio.Event()
        sources = JoinSources(home=folder / "west", public=east.transport.addresses)
        joiner = Joiner(
            west.directory, sources, own=west.peer, wall_clock=time.time, met=merged.set
        )
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            task = group.create_task(joiner.run())
            await merged.wait()
            task.cancel()
        for node in islanders:
            assert await seen_by(node) == {each.peer for each in islanders}


async def test_a_swarm_outlives_its_bootstrap_peer(folder: Path) -> None:
    async with cluster(folder) as start:
        bootstrap = await start.node()
        one, two = [await start.node(bootstrap) for _ in range(2)]
        joiner = joiner_of(two, folder, *bootstrap.transport.addresses)
        assert await joiner.join(may_found=False), "and saves the last good peers"
        for node in (one, two):
            await node.directory.publish(node.announcement())
        os.kill(bootstrap.transport.daemon_pid, signal.SIGKILL)

        started_at = time.monotonic()
        assert await seen_by(two) == {one.peer, two.peer}
        assert time.monotonic() - started_at < 1.0, "a dead peer is not waited for"

        newcomer = await start.node()
        rejoining = joiner_of(newcomer, folder, public=bootstrap.transport.addresses)
        assert await rejoining.join(may_found=False), "through the last good peers"
        assert await seen_by(newcomer) == {one.peer, two.peer}
        with pytest.raises(PeerError):
            await newcomer.directory.meet(bootstrap.peer, bootstrap.transport.addresses)


async def test_a_client_that_is_cut_off_is_told_so(folder: Path) -> None:
    async with cluster(folder) as start:
        node = await start.node()
        client = await start.node(node, is_client=True)
        os.kill(node.transport.daemon_pid, signal.SIGKILL)
        with pytest.raises(JoinFailed, match="no peer of the swarm answers"):
            await client.directory.announcements()
        with pytest.raises(JoinFailed, match="none of"):
            await client.directory.publish(client.announcement())


async def test_the_death_of_our_own_daemon_ends_every_wait(folder: Path) -> None:
    async with cluster(folder) as start:
        friend = await start.node()
        node = await start.node(friend)
        os.kill(node.transport.daemon_pid, signal.SIGKILL)
        started_at = time.monotonic()
        assert await seen_by(node) == set()
        with contextlib.suppress(JoinFailed):
            await node.directory.publish(node.announcement())
        assert time.monotonic() - started_at < 3.0
