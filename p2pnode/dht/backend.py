"""The names of hivemind that the directory uses; the one place of `dht` that imports it.

`net.libraries` comes first: it lets hivemind and libp2p live in one process.
"""

from __future__ import annotations

import p2pnode.net.libraries  # noqa: F401 # isort: skip
from hivemind.dht.routing import DHTID
from hivemind.p2p import P2P, P2PContext, P2PDaemonError, P2PHandlerError, PeerID, ServicerBase
from hivemind.proto import dht_pb2

__all__ = [
    "DHTID",
    "P2P",
    "P2PContext",
    "P2PDaemonError",
    "P2PHandlerError",
    "PeerID",
    "ServicerBase",
    "dht_pb2",
]
