"""Address groups: who is in the same network, as far as an address tells.

By /16 (IPv4) and /32 (IPv6), what one provider is given at a time. A relayed peer is where its
relay is. Peers in private networks are in no group: those are one's own.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
from collections.abc import Awaitable, Callable, Mapping

from p2pnode.dht.backend import PeerID

OTHER = "other"
UNKNOWN = "unknown"
"""The group of those who have gone by the time that we look."""
IPV4_BITS = 16
IPV6_BITS = 32
MAX_PEERS = 8192

Connected = Callable[[], Awaitable[Mapping[PeerID, str]]]
"""The address at the other end of each connection."""


class Groups:
    """The group of each peer by its connection, remembered: what peers say of it may be false."""

    def __init__(self, connected: Connected) -> None:
        self._connected = connected
        self._looking = asyncio.Lock()
        self.known: dict[PeerID, str | None] = {}

    async def of(self, peer: PeerID) -> str | None:
        """The group of a peer that is connected; None: counted as one of no group."""
        if peer not in self.known:
            async with self._looking:  # what one look shows serves all who wait for it
                if peer not in self.known:
                    await self._look()
        return self.known.get(peer, UNKNOWN)

    async def _look(self) -> None:
        if len(self.known) > MAX_PEERS:
            self.known.clear()
        connected = await self._connected()
        self.known.update({peer: group_of(address) for peer, address in connected.items()})


@functools.lru_cache(MAX_PEERS)
def group_of(address: str) -> str | None:
    """The group of ``/ip4/...`` or ``/ip6/...``; None: private; `OTHER`: any other form."""
    parts = address.split("/")
    if len(parts) < 3 or parts[1] not in ("ip4", "ip6"):
        return OTHER
    try:
        ip = ipaddress.ip_address(parts[2])
    except ValueError:
        return OTHER
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_private or ip.is_loopback or ip.is_link_local:
        return None
    bits = IPV4_BITS if ip.version == 4 else IPV6_BITS
    return str(ipaddress.ip_network((ip, bits), strict=False))
