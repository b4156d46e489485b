"""Our dialect of hivemind's DHT protocol: its messages and routing table, our rules.

Differs from hivemind's in what strangers may do, and in what runs unseen:
- a node's place in the DHT follows from its peer id, so nobody chooses to sit beside a key;
- only our keys hold anything, only checked records are held, nothing is cached for others;
- one bad record in a reply costs that record, not the whole reply, and a reply cannot end a search
  early by claiming to be the newest;
- all calls go through `Calls`, which connects first and bounds them;
- no background tasks: nothing is pushed to newcomers, because announcers repeat themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from typing import Any, Self

from p2pnode.dht.backend import (
    DHTID,
    P2P,
    DHTLocalStorage,
    DHTProtocol,
    DictionaryDHTValue,
    MSGPackSerializer,
    P2PContext,
    P2PDaemonError,
    P2PHandlerError,
    PeerID,
    RoutingTable,
    ValueWithExpiration,
    dht_pb2,
)
from p2pnode.dht.calls import Calls
from p2pnode.dht.guard import loads
from p2pnode.dht.holder import Holder
from p2pnode.dht.records import RecordJudge
from p2pnode.dht.shards import (
    KEY_OF_ID,
    HeldShards,
    Plain,
    find_result,
    from_hivemind,
    node_id_of,
    pack_shard,
    to_hivemind,
)
from p2pnode.errors import BadRecord, P2PNodeError, PeerLost, PeerMisbehaved, WireError
from p2pnode.types import PeerId

log = logging.getLogger(__name__)

Neighbours = dict[DHTID, PeerID]
Found = tuple[ValueWithExpiration | None, Neighbours]

BUCKET_SIZE = 20
DEPTH_MODULO = 5
RECORDS_AT_ONCE = 32
MAX_KEYS = 4
"""In one request: four full shards are 3 MiB, and a reply may have 4."""


class P2PNodeDirectory1(DHTProtocol):  # type: ignore[misc]
    """The class name and the ``rpc_`` methods name our protocol on the wire."""

    _clock: Callable[[], float]
    _rpc_handlers = None
    _stub_type = None
    serializer = Plain

    @classmethod
    def over(
        cls,
        p2p: P2P,
        calls: Calls,
        holder: Holder,
        judge: RecordJudge,
        *,
        clock: Callable[[], float],
        is_client: bool,
        heard: Callable[[PeerId, PeerId], None],
    ) -> Self:
        """A protocol whose handlers are not yet registered.

        heard: told (about whom, by whom) for each peer that another one named
        """
        self = cls(_initialized_with_create=True)
        self.p2p, self.node_id, self.client_mode = p2p, node_id_of(p2p.peer_id), is_client
        self.routing_table = RoutingTable(self.node_id, BUCKET_SIZE, DEPTH_MODULO)
        self.bucket_size, self.record_validator = BUCKET_SIZE, None
        self.storage, self.cache = HeldShards(holder, clock), DHTLocalStorage()
        self._calls, self._holder, self._judge = calls, holder, judge
        self._clock, self._heard = clock, heard
        # An empty node id tells others not to take us into their routing tables.
        node_id = b"" if is_client else self.node_id.to_bytes()
        self.node_info = dht_pb2.NodeInfo(node_id=node_id)
        return self

    async def register(self) -> None:
        """Let the daemon hand us these calls; raises P2PDaemonError."""
        for method in ("rpc_ping", "rpc_store", "rpc_find"):
            with contextlib.suppress(P2PDaemonError):  # none was registered: the usual case
                await self.p2p.remove_protobuf_handler(f"{type(self).__name__}.{method}")
        await self.add_p2p_handlers(self.p2p)

    # --- what we ask

    async def ping(self, peer: PeerId) -> tuple[float, float]:
        """How far the peer's clock is ahead of ours, and how uncertain that is, in seconds.

        Raises PeerError.
        """
        sent_at, answer = await self._call(to_hivemind(peer), "rpc_ping", dht_pb2.PingRequest)
        received_at = self._clock()
        middle = (sent_at + received_at) / 2
        return float(answer.dht_time) - middle, (received_at - sent_at) / 2

    async def store(
        self, peer: PeerID, key: bytes, subkey: str, value: bytes, expires_at: float
    ) -> bool:
        """Whether the peer keeps the record; raises PeerError."""
        _, answer = await self._call(
            peer,
            "rpc_store",
            dht_pb2.StoreRequest,
            keys=[DHTID.generate(source=key).to_bytes()],
            subkeys=[MSGPackSerializer.dumps(subkey)],
            values=[value],
            expiration_time=[expires_at],
            in_cache=[False],
        )
        return list(answer.store_ok) == [True]

    async def call_find(self, peer: PeerID, keys: Collection[DHTID]) -> dict[DHTID, Found] | None:
        """What the peer holds under each key, and whom it knows near it; None without an answer."""
        wanted = list(keys)
        try:
            raw_keys = [key.to_bytes() for key in wanted]
            _, answer = await self._call(peer, "rpc_find", dht_pb2.FindRequest, keys=raw_keys)
            if len(answer.results) != len(wanted):
                raise PeerMisbehaved(from_hivemind(peer), "answered other keys than it was asked")
            found = {}
            for key, result in zip(wanted, answer.results, strict=True):
                shard = await self._read_shard(key, result)
                found[key] = shard, self._read_neighbours(peer, result)
        except (P2PNodeError, ValueError) as error:
            log.debug("directory peer failed: error=%r", str(error))
            await self.update_routing_table(None, peer, responded=False)
            return None
        return found

    async def _call(
        self, peer: PeerID, method: str, request_type: Any, **fields: Any
    ) -> tuple[float, Any]:
        """One bounded call: when it was sent, and the answer; raises PeerError.

        The peer enters or leaves the routing table by its outcome.
        """
        stub = super(DHTProtocol, self).get_stub(self.p2p, peer)
        request = request_type(peer=self.node_info, **fields)
        name = from_hivemind(peer)

        async def call() -> tuple[float, Any]:
            sent_at = self._clock()  # connecting has been done
            try:
                return sent_at, await getattr(stub, method)(request)
            except (P2PDaemonError, P2PHandlerError) as error:
                raise PeerLost(name, f"directory call failed: {str(error)[:200]!r}") from error

        try:
            sent_at, answer = await self._calls.run(name, call)
        except P2PNodeError:
            await self.update_routing_table(None, peer, responded=False)
            raise
        await self._note(peer, answer.peer)
        return sent_at, answer

    async def _read_shard(self, key_id: DHTID, result: Any) -> ValueWithExpiration | None:
        """The believable records of a reply; others may run between their signature checks."""
        if result.type != dht_pb2.FOUND_DICTIONARY:
            return None
        shard = loads(result.value)
        if not isinstance(shard, DictionaryDHTValue):
            raise WireError("a shard that is no dictionary")
        now, key, good = self._clock(), KEY_OF_ID.get(key_id, b""), []
        for number, (subkey, (value, expires_at)) in enumerate(shard.items()):
            if number % RECORDS_AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                self._judge.check(key, subkey, value, expires_at, now=now)
            except BadRecord as error:
                log.debug("record not believed: error=%r", str(error))
            else:
                good.append((subkey, value, expires_at))
        return pack_shard(good)

    def _read_neighbours(self, teller: PeerID, result: Any) -> Neighbours:
        neighbours = {}
        pairs = list(zip(result.nearest_node_ids, result.nearest_peer_ids, strict=True))
        for raw_id, raw_peer in pairs[:BUCKET_SIZE]:
            peer = PeerID(raw_peer)
            node_id = node_id_of(peer)
            if node_id.to_bytes() != raw_id or node_id == self.node_id:
                continue
            self._heard(from_hivemind(peer), from_hivemind(teller))
            neighbours[node_id] = peer
        return neighbours

    # --- what others ask us

    async def rpc_ping(
        self, request: dht_pb2.PingRequest, context: P2PContext
    ) -> dht_pb2.PingResponse:
        """Tell our clock; take the sender into the routing table."""
        await self._note(context.remote_id, request.peer)
        return dht_pb2.PingResponse(peer=self.node_info, dht_time=self._clock(), available=True)

    async def rpc_store(
        self, request: dht_pb2.StoreRequest, context: P2PContext
    ) -> dht_pb2.StoreResponse:
        """Keep the records that may be believed."""
        await self._note(context.remote_id, request.peer)
        if len(request.keys) > MAX_KEYS:
            raise ValueError(f"{len(request.keys)} records in one request, at most {MAX_KEYS}")
        records = zip(
            request.keys,
            request.subkeys,
            request.values,
            request.expiration_time,
            request.in_cache,
            strict=True,
        )
        kept = [not in_cache and self._keep(*record) for *record, in_cache in records]
        return dht_pb2.StoreResponse(peer=self.node_info, store_ok=kept)

    def _keep(self, raw_id: bytes, raw_subkey: bytes, value: bytes, expires_at: float) -> bool:
        try:
            key = KEY_OF_ID.get(int.from_bytes(raw_id, "big"), b"")
            self._holder.put(key, loads(raw_subkey), value, expires_at, now=self._clock())
        except (BadRecord, ValueError) as error:
            log.debug("record not kept: error=%r", str(error))
            return False
        return True

    async def rpc_find(
        self, request: dht_pb2.FindRequest, context: P2PContext
    ) -> dht_pb2.FindResponse:
        """What we hold under each key, and whom we know near it."""
        await self._note(context.remote_id, request.peer)
        if len(request.keys) > MAX_KEYS:
            raise ValueError(f"{len(request.keys)} keys in one request, at most {MAX_KEYS}")
        sender = node_id_of(context.remote_id)
        response = dht_pb2.FindResponse(peer=self.node_info)
        for raw_id in request.keys:
            key_id = DHTID(int.from_bytes(raw_id[: DHTID.HASH_NBYTES], "big"))
            result = find_result(self.storage.get(key_id))
            near = self.routing_table.get_nearest_neighbors(key_id, k=BUCKET_SIZE, exclude=sender)
            for node_id, peer in near:
                result.nearest_node_ids.append(node_id.to_bytes())
                result.nearest_peer_ids.append(peer.to_bytes())
            response.results.append(result)
        return response

    # --- the routing table

    async def _note(self, peer: PeerID, info: Any) -> None:
        """Take a peer in that says it is a node, at the place that its peer id gives it."""
        if info.node_id and info.node_id == node_id_of(peer).to_bytes():
            await self.update_routing_table(node_id_of(peer), peer)

    async def update_routing_table(
        self, node_id: DHTID | None, peer_id: PeerID, responded: bool = True
    ) -> None:
        """Enter a peer that was heard, or remove one that did not answer."""
        table, node_id = self.routing_table, node_id_of(peer_id)
        if not responded:
            if node_id in table:
                del table[node_id]
        elif node_id != self.node_id:
            bucket = table.buckets[table.get_bucket_index(node_id)]
            if node_id in table or len(bucket.replacement_nodes) < BUCKET_SIZE:
                table.add_or_update_node(node_id, peer_id)
