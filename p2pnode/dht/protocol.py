"""Our dialect of hivemind's DHT protocol: its messages, our rules.

Differs from hivemind's in what strangers may do, and in what runs unseen:
- a node's place in the DHT follows from its peer id, so nobody chooses to sit beside a key;
- only our keys hold anything, only checked records are held, nothing is cached for others;
- a find lists the ids of records; who wants them fetches those that it does not have;
- one bad record in a reply costs that record, not the whole reply, and a reply cannot end a search
  early by claiming to be the newest;
- all calls go through `Calls`, which connects first and bounds them;
- no background tasks: nothing is pushed to newcomers, because announcers repeat themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from p2pnode.dht.admits import Admits, everybody
from p2pnode.dht.backend import (
    DHTID,
    P2P,
    P2PContext,
    P2PDaemonError,
    P2PHandlerError,
    PeerID,
    ServicerBase,
    dht_pb2,
)
from p2pnode.dht.calls import Calls
from p2pnode.dht.fetch import MAX_IDS
from p2pnode.dht.groups import Groups
from p2pnode.dht.holder import Holder
from p2pnode.dht.ids import KEY_OF_ID, from_hivemind, node_id_of, to_hivemind
from p2pnode.dht.records import ID_BYTES, RecordJudge
from p2pnode.dht.search import Found, Neighbours
from p2pnode.dht.table import BUCKET_SIZE, RoutingTable
from p2pnode.errors import BadRecord, P2PNodeError, PeerDenied, PeerLost, PeerMisbehaved
from p2pnode.types import Announcement, PeerId

log = logging.getLogger(__name__)

RECORDS_AT_ONCE = 32
MAX_KEYS = 4
"""In one request."""
MAX_LISTED = 4096
"""Ids in one list; a full shard has fewer."""


class P2PNodeDirectory2(ServicerBase):  # type: ignore[misc]
    """The class name and the ``rpc_`` methods name our protocol on the wire."""

    def __init__(
        self,
        p2p: P2P,
        calls: Calls,
        holder: Holder,
        judge: RecordJudge,
        groups: Groups,
        *,
        clock: Callable[[], float],
        is_client: bool,
        heard: Callable[[PeerId, PeerId], None],
        admits: Admits = everybody,
    ) -> None:
        """Its handlers are not yet registered.

        heard: told (about whom, by whom) for each peer that another one named
        admits: whose calls are answered, and whose answers are believed
        """
        super().__init__()
        self.node_id = node_id_of(p2p.peer_id)
        self.table = RoutingTable(self.node_id)
        self._p2p, self._calls, self._holder, self._judge = p2p, calls, holder, judge
        self._groups, self._clock, self._heard = groups, clock, heard
        self._admits = admits
        # An empty node id tells others not to take us into their routing tables.
        node_id = b"" if is_client else self.node_id.to_bytes()
        self._info = dht_pb2.NodeInfo(node_id=node_id)

    async def register(self) -> None:
        """Let the daemon hand us these calls; raises P2PDaemonError."""
        for method in ("rpc_ping", "rpc_store", "rpc_find", "rpc_fetch"):
            with contextlib.suppress(P2PDaemonError):  # none was registered: the usual case
                await self._p2p.remove_protobuf_handler(f"{type(self).__name__}.{method}")
        await self.add_p2p_handlers(self._p2p)

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
            subkeys=[subkey.encode()],
            values=[value],
            expiration_time=[expires_at],
            in_cache=[False],
        )
        return list(answer.store_ok) == [True]

    async def find(self, peer: PeerID, keys: Collection[DHTID]) -> dict[DHTID, Found] | None:
        """What the peer holds under each key, and whom it knows near it; None without an answer."""
        raw_keys = [key.to_bytes() for key in keys]
        try:
            _, answer = await self._call(peer, "rpc_find", dht_pb2.FindRequest, keys=raw_keys)
            results = _as_many(peer, answer.results, raw_keys)
            return {
                key: (_read_list(peer, result.value), self._read_neighbours(peer, result))
                for key, result in zip(keys, results, strict=True)
            }
        except (P2PNodeError, ValueError) as error:
            self._failed(peer, error)
            return None

    async def fetch(self, peer: PeerID, ids: Sequence[bytes]) -> list[Announcement]:
        """What the peer's records of these ids say, as far as they may be believed.

        Those that it does not give are missing, and all when it fails.
        """
        good: list[Announcement] = []
        try:
            _, answer = await self._call(peer, "rpc_fetch", dht_pb2.FindRequest, keys=list(ids))
            for number, result in enumerate(_as_many(peer, answer.results, ids)):
                if number % RECORDS_AT_ONCE == 0:
                    await asyncio.sleep(0)  # others may run between signature checks
                if result.value:
                    good += self._believed(result.value)
        except P2PNodeError as error:
            self._failed(peer, error)
        return good

    def _believed(self, value: bytes) -> list[Announcement]:
        try:
            return [self._judge.believe(value, now=self._clock())]
        except BadRecord as error:
            log.debug("record not believed: error=%r", str(error))
            return []

    def _failed(self, peer: PeerID, error: Exception) -> None:
        log.debug("directory peer failed: error=%r", str(error))
        self.table.remove(node_id_of(peer))

    async def _call(
        self, peer: PeerID, method: str, request_type: Any, **fields: Any
    ) -> tuple[float, Any]:
        """One bounded call: when it was sent, and the answer; raises PeerError.

        The peer enters or leaves the routing table by its outcome.
        """
        stub = self.get_stub(self._p2p, peer)
        request = request_type(peer=self._info, **fields)
        name = from_hivemind(peer)

        async def call() -> tuple[float, Any]:
            sent_at = self._clock()  # connecting has been done
            self._check_member(name)
            try:
                answer = await getattr(stub, method)(request)
            except (P2PDaemonError, P2PHandlerError) as error:
                raise PeerLost(name, f"directory call failed: {str(error)[:200]!r}") from error
            except DecodeError as error:
                raise PeerMisbehaved(name, "answered a call with what is no message") from error
            self._check_member(name)
            return sent_at, answer

        try:
            sent_at, answer = await self._calls.run(name, call)
        except P2PNodeError:
            self.table.remove(node_id_of(peer))
            raise
        await self._note(peer, answer.peer)
        return sent_at, answer

    def _check_member(self, peer: PeerId, serves: bool = True) -> None:
        """Raises PeerDenied for one with whom we have nothing to do."""
        if not self._admits(peer, serves):
            raise PeerDenied(peer, "is no member of our swarm that may do this")

    def _read_neighbours(self, teller: PeerID, result: Any) -> Neighbours:
        neighbours = {}
        for raw_peer in result.nearest_peer_ids[:BUCKET_SIZE]:
            peer = PeerID(raw_peer)
            if peer != self._p2p.peer_id:
                self._heard(from_hivemind(peer), from_hivemind(teller))
                neighbours[node_id_of(peer)] = peer
        return neighbours

    # --- what others ask us

    async def rpc_ping(
        self, request: dht_pb2.PingRequest, context: P2PContext
    ) -> dht_pb2.PingResponse:
        """Tell our clock; take the sender into the routing table."""
        self._check_member(from_hivemind(context.remote_id), serves=False)
        await self._note(context.remote_id, request.peer)
        return dht_pb2.PingResponse(peer=self._info, dht_time=self._clock(), available=True)

    async def rpc_store(
        self, request: dht_pb2.StoreRequest, context: P2PContext
    ) -> dht_pb2.StoreResponse:
        """Keep the records that may be believed."""
        self._check_member(from_hivemind(context.remote_id))
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
        return dht_pb2.StoreResponse(peer=self._info, store_ok=kept)

    def _keep(self, raw_id: bytes, raw_subkey: bytes, value: bytes, expires_at: float) -> bool:
        try:
            key, subkey = KEY_OF_ID.get(int.from_bytes(raw_id, "big"), b""), raw_subkey.decode()
            self._check_member(PeerId.parse(subkey.partition("/")[0]))
            self._holder.put(key, subkey, value, expires_at, now=self._clock())
        except (BadRecord, PeerDenied, ValueError) as error:
            log.debug("record not kept: error=%r", str(error))
            return False
        return True

    async def rpc_find(
        self, request: dht_pb2.FindRequest, context: P2PContext
    ) -> dht_pb2.FindResponse:
        """The ids of what we hold under each key, and whom we know near it."""
        self._check_member(from_hivemind(context.remote_id), serves=False)
        await self._note(context.remote_id, request.peer)
        if len(request.keys) > MAX_KEYS:
            raise ValueError(f"{len(request.keys)} keys in one request, at most {MAX_KEYS}")
        now, sender = self._clock(), node_id_of(context.remote_id)
        response = dht_pb2.FindResponse(peer=self._info)
        for raw_id in request.keys:
            key_id = DHTID(int.from_bytes(raw_id[: DHTID.HASH_NBYTES], "big"))
            held = self._holder.shard(KEY_OF_ID.get(key_id, b""), now=now).values()
            near = self.table.spread(key_id, asker=sender)
            result = response.results.add(value=b"".join(each.record_id for each in held))
            result.nearest_peer_ids.extend(peer.to_bytes() for peer in near)
        return response

    async def rpc_fetch(
        self, request: dht_pb2.FindRequest, context: P2PContext
    ) -> dht_pb2.FindResponse:
        """The records with these ids; empty where we have none."""
        self._check_member(from_hivemind(context.remote_id), serves=False)
        await self._note(context.remote_id, request.peer)
        if len(request.keys) > MAX_IDS:
            raise ValueError(f"{len(request.keys)} ids in one request, at most {MAX_IDS}")
        response = dht_pb2.FindResponse(peer=self._info)
        for value in self._holder.records(request.keys, now=self._clock()):
            response.results.add(value=value)
        return response

    async def _note(self, peer: PeerID, info: Any) -> None:
        """Take a peer in that says it is a node, at the place that its peer id gives it."""
        node_id = node_id_of(peer)
        is_node = info.node_id and info.node_id == node_id.to_bytes()
        if is_node and self._admits(from_hivemind(peer), True):
            self.table.add(node_id, peer, await self._groups.of(peer))


def _as_many(peer: PeerID, results: Any, asked: Sequence[bytes]) -> Any:
    if len(results) != len(asked):
        raise PeerMisbehaved(from_hivemind(peer), "answered another number of questions")
    return results


def _read_list(peer: PeerID, data: bytes) -> list[bytes]:
    if len(data) % ID_BYTES or len(data) > MAX_LISTED * ID_BYTES:
        raise PeerMisbehaved(from_hivemind(peer), f"a list of {len(data)} bytes")
    return [data[at : at + ID_BYTES] for at in range(0, len(data), ID_BYTES)]
