"""Between hivemind's ids and ours, and where both have their place in the DHT."""

from __future__ import annotations

import functools

from p2pnode.dht.backend import DHTID, PeerID
from p2pnode.dht.records import ALL_KEYS
from p2pnode.types import PeerId

MAX_REMEMBERED = 8192

KEY_OF_ID: dict[int, bytes] = {int(DHTID.generate(source=key)): key for key in ALL_KEYS}


@functools.lru_cache(MAX_REMEMBERED)
def node_id_of(peer: PeerID) -> DHTID:
    """The place of a peer in the DHT."""
    return DHTID.generate(source=peer.to_bytes())


def to_hivemind(peer: PeerId) -> PeerID:
    """Our peer id as hivemind's."""
    return PeerID.from_base58(peer)


@functools.lru_cache(MAX_REMEMBERED)
def from_hivemind(peer: PeerID) -> PeerId:
    """Hivemind's peer id as ours; ValueError unless it is that of an Ed25519 key."""
    return PeerId.parse(peer.to_base58())
