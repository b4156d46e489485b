"""Address groups: who is in the same network, as far as an address tells. Pure.

By /16 (IPv4) and /32 (IPv6), what one provider is given at a time. A relayed peer is where its
relay is. Peers in private networks are in no group: those are one's own.
"""

from __future__ import annotations

import ipaddress

OTHER = "other"
IPV4_BITS = 16
IPV6_BITS = 32


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
