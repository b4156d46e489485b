"""The names of hivemind that the directory uses; the one place of `dht` that imports it.

`net.libraries` comes first: it lets hivemind and libp2p live in one process.
"""

from __future__ import annotations

import p2pnode.net.libraries  # noqa: F401 # isort: skip
from hivemind.dht.protocol import DHTProtocol
from hivemind.dht.routing import DHTID, RoutingTable
from hivemind.dht.storage import DHTLocalStorage, DictionaryDHTValue
from hivemind.p2p import P2P, P2PContext, P2PDaemonError, P2PHandlerError, PeerID
from hivemind.proto import dht_pb2
from hivemind.utils.serializer import MSGPackSerializer
from hivemind.utils.timed_storage import ValueWithExpiration

__all__ = [
    "DHTID",
    "P2P",
    "DHTLocalStorage",
    "DHTProtocol",
    "DictionaryDHTValue",
    "MSGPackSerializer",
    "P2PContext",
    "P2PDaemonError",
    "P2PHandlerError",
    "PeerID",
    "RoutingTable",
    "ValueWithExpiration",
    "dht_pb2",
]
