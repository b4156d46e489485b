"""Which connections are kept when there are too many: those to peers of open sessions.

p2pd closes connections when it has more than it may; which ones, it chooses by how much they are
worth to us. A crowd of strangers must not cost a session its chain.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Set

from p2pnode.errors import P2PNodeError
from p2pnode.net.transport import Transport
from p2pnode.types import PeerId

log = logging.getLogger(__name__)


class Protection:
    """Tells the transport, in order, and one after the other."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._wanted: frozenset[PeerId] = frozenset()
        self._told: set[PeerId] = set()
        self._changed = asyncio.Event()

    def set(self, peers: Set[PeerId]) -> None:
        """From now on these are protected, and no others."""
        if peers != self._wanted:
            self._wanted = frozenset(peers)
            self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for peer in self._told ^ self._wanted:
                await self._tell(peer)

    async def _tell(self, peer: PeerId) -> None:
        is_protected = peer in self._wanted
        try:
            await self._transport.protect(peer, is_protected)
        except P2PNodeError as error:  # the connection is as good as any other, then
            log.debug("not protected: peer=%s error=%s", peer.short, error)
        if is_protected:
            self._told.add(peer)
        else:
            self._told.discard(peer)
