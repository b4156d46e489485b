"""Between hivemind's forms and ours: ids, and shards as the dictionaries that it sends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from p2pnode.dht.backend import (
    DHTID,
    DictionaryDHTValue,
    MSGPackSerializer,
    PeerID,
    ValueWithExpiration,
    dht_pb2,
)
from p2pnode.dht.holder import Holder
from p2pnode.dht.records import ALL_KEYS
from p2pnode.types import PeerId

KEY_OF_ID: dict[int, bytes] = {int(DHTID.generate(source=key)): key for key in ALL_KEYS}


def node_id_of(peer: PeerID) -> DHTID:
    """The place of a peer in the DHT."""
    return DHTID.generate(source=peer.to_bytes())


def to_hivemind(peer: PeerId) -> PeerID:
    """Our peer id as hivemind's."""
    return PeerID.from_base58(peer)


def from_hivemind(peer: PeerID) -> PeerId:
    """Hivemind's peer id as ours; ValueError unless it is that of an Ed25519 key."""
    return PeerId.parse(peer.to_base58())


class Plain:
    """Values are envelopes already: only what holds them together is msgpack."""

    dumps = staticmethod(MSGPackSerializer.dumps)

    @staticmethod
    def loads(data: bytes) -> bytes:
        """An envelope is what it is."""
        return data


class HeldShards:
    """What hivemind's node sees of our `Holder`."""

    def __init__(self, holder: Holder, clock: Callable[[], float]) -> None:
        self._holder = holder
        self._clock = clock

    def get(self, key_id: DHTID) -> ValueWithExpiration | None:
        """A copy of the shard, or None when it is empty."""
        held = self._holder.shard(KEY_OF_ID.get(key_id, b""), now=self._clock())
        return pack_shard((subkey, each.value, each.expires_at) for subkey, each in held.items())


def pack_shard(items: Iterable[tuple[str, bytes, float]]) -> ValueWithExpiration | None:
    """Records as hivemind's dictionary; None without any."""
    dictionary = DictionaryDHTValue()
    dictionary.frozen = True  # it would drop by its own clock; ours is handed in
    for subkey, value, expires_at in items:
        dictionary.store(subkey, value, expires_at)
    if not dictionary.data:
        return None
    return ValueWithExpiration(dictionary, dictionary.latest_expiration_time)


def find_result(shard: ValueWithExpiration | None) -> Any:
    """A shard as the answer to a find request."""
    if shard is None:
        return dht_pb2.FindResult(type=dht_pb2.NOT_FOUND)
    return dht_pb2.FindResult(
        type=dht_pb2.FOUND_DICTIONARY,
        value=MSGPackSerializer.dumps(shard.value),
        expiration_time=shard.expiration_time,
    )
