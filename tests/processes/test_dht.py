"""The directory on Kademlia: real p2pd processes on loopback; its rules, and who breaks them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from p2pnode.dht.backend import DHTID, P2PContext, dht_pb2
from p2pnode.dht.ids import node_id_of, to_hivemind
from p2pnode.dht.records import ALL_KEYS, id_of, key_of, seal_announcement, shard_of, subkey_of
from p2pnode.dht.whois import WHOIS
from p2pnode.errors import BadRecord, ClockSkew
from p2pnode.net.libp2p_transport import P2PTransport
from p2pnode.net.libraries import hivemind
from p2pnode.net.transport import ByteStream
from p2pnode.types import Announcement
from tests.processes.dht_cluster import cluster, seen_by
from tests.support.announcements import key_pair

pytestmark = pytest.mark.processes


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    return tmp_path


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


class P2PNodeDirectory2(hivemind.p2p.ServicerBase):  # type: ignore[misc]
    """A holder that lies: lists the records it was given, and gives forged ones instead."""

    def __init__(self, number: int, transport: P2PTransport, victim: Announcement) -> None:
        self.transport = transport
        self.forged = seal_announcement(key_pair(number), victim)
        self.listed: list[bytes] = []
        self.num_asked = 0
        self.info = dht_pb2.NodeInfo(node_id=node_id_of(to_hivemind(transport.peer)).to_bytes())

    async def rpc_ping(
        self, request: dht_pb2.PingRequest, context: P2PContext
    ) -> dht_pb2.PingResponse:
        return dht_pb2.PingResponse(peer=self.info, dht_time=time.time(), available=True)

    async def rpc_store(
        self, request: dht_pb2.StoreRequest, context: P2PContext
    ) -> dht_pb2.StoreResponse:
        self.listed += request.values
        return dht_pb2.StoreResponse(peer=self.info, store_ok=[True] * len(request.keys))

    async def rpc_find(
        self, request: dht_pb2.FindRequest, context: P2PContext
    ) -> dht_pb2.FindResponse:
        self.num_asked += 1
        result = dht_pb2.FindResult(
            type=dht_pb2.FOUND_DICTIONARY,
            value=b"".join(map(id_of, (self.forged, *self.listed))),
            expiration_time=float("inf"),
            nearest_peer_ids=[to_hivemind(self.transport.peer).to_bytes()],
        )
        return dht_pb2.FindResponse(peer=self.info, results=[result for _ in request.keys])

    async def rpc_fetch(
        self, request: dht_pb2.FindRequest, context: P2PContext
    ) -> dht_pb2.FindResponse:
        result = dht_pb2.FindResult(value=self.forged)
        return dht_pb2.FindResponse(peer=self.info, results=[result for _ in request.keys])


async def _know_nothing(stream: ByteStream) -> None:
    await stream.read_exactly(2)
    answer = b"\x82\xa4kind\xa5known\xa9addresses\x90"
    stream.write(len(answer).to_bytes(2, "big") + answer)
    await stream.read_exactly(1000)


async def test_a_lying_holder_hides_nothing_and_invents_nothing(folder: Path) -> None:
    async with cluster(folder) as start:
        honest = await start.node()
        number, transport = await start.transport()
        liar = P2PNodeDirectory2(number, transport, honest.announcement(model="forged"))
        await liar.add_p2p_handlers(transport.p2p)
        await transport.serve(WHOIS, _know_nothing)
        await honest.directory.meet(transport.peer, transport.addresses)
        await honest.directory.publish(honest.announcement())
        assert len(liar.listed) == 1
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
        for subkey, value in ((b"", b"\xc1"), (b"\xff", b"x"), (b"x" * 99_999, b"")):
            request = dht_pb2.StoreRequest(
                keys=[key], subkeys=[subkey], values=[value], expiration_time=[1.0], in_cache=[0]
            )
            async with asyncio.timeout(3):
                answer = await stranger.p2p.call_protobuf_handler(
                    to_hivemind(node.peer),
                    "P2PNodeDirectory2.rpc_store",
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
