"""Multiaddresses: the peer in them, ours to announce, and which ones are near.

An address is text like ``/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW...``; QUIC is
``/ip4/192.0.2.7/udp/4001/quic-v1``. What strangers wrote is parsed here and nowhere else.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

import psutil
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from p2pnode.errors import BadRequest
from p2pnode.types import PeerId

MAX_ADDRESS_CHARS = 300

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def split(address: str) -> tuple[str, PeerId | None]:
    """Take the peer off the end of an address; ValueError when it is not an address."""
    where, named, peer = address.partition("/p2p/")
    parse(where)
    return where, PeerId.parse(peer) if named else None


def parse(where: str) -> Multiaddr:
    """An address without its peer; ValueError when we cannot dial such a thing."""
    if len(where) > MAX_ADDRESS_CHARS:
        raise ValueError(f"an address of {len(where)} characters")
    try:
        parsed = Multiaddr(where)
        protocols = [protocol.name for protocol in parsed.protocols()]
    except (MultiaddrError, ValueError, LookupError) as error:
        raise ValueError(f"{where[:80]!r} is not an address") from error
    if protocols[:1] and protocols[0] in {"ip4", "ip6", "dns", "dns4", "dns6"}:
        if protocols[1:] in (["tcp"], ["udp", "quic-v1"]):
            return parsed
    raise ValueError(f"{where[:80]!r} is neither TCP nor QUIC, e.g. /ip4/192.0.2.7/tcp/4001")


def listening(host: str, port: int) -> tuple[str, str]:
    """TCP and QUIC on one number; BadRequest when ``host`` is not an IP address."""
    ip = _host_ip(host)
    prefix = f"/ip{ip.version}/{ip}"
    return f"{prefix}/tcp/{port}", f"{prefix}/udp/{port}/quic-v1"


def dialable(peer: PeerId, host: str, port: int, announce: Iterable[str]) -> tuple[str, ...]:
    """Our addresses for others, the best first: announced ones, then the host's or interfaces'.

    Raises BadRequest when an announced one is not an address, or is another peer's.
    """
    found: list[str] = []
    for address in announce:
        try:
            where, named = split(address)
        except ValueError as error:
            raise BadRequest(f"cannot announce {address[:80]!r}: {error}") from error
        if named not in (None, peer):
            raise BadRequest(f"cannot announce {address[:80]!r}: it is another peer's")
        found.append(where)
    ip = _host_ip(host)
    hosts = _interface_hosts(ip.version) if ip.is_unspecified else [str(ip)]
    for each in hosts:
        found += listening(each, port)
    return tuple(f"{where}/p2p/{peer}" for where in dict.fromkeys(found))


def is_near(where: Multiaddr) -> bool:
    """Whether an address is this machine's or in a network that it is part of."""
    code = where.protocols()[0].name
    if code not in ("ip4", "ip6"):
        return False
    ip = ipaddress.ip_address(str(where.value_for_protocol(code)))
    return ip.is_loopback or any(ip in network for _, network in _interfaces(ip.version))


def is_quic(where: Multiaddr) -> bool:
    """Whether an address is QUIC, else it is TCP."""
    return str(where.protocols()[-1].name) == "quic-v1"


def _host_ip(host: str) -> IPAddress:
    try:
        return ipaddress.ip_address(host)
    except ValueError as error:
        raise BadRequest(f"host {host[:60]!r} is not an IP address, e.g. 0.0.0.0") from error


def _interface_hosts(version: int) -> list[str]:
    """The addresses of this machine, the one that faces the world first.

    Loopback only where there is no other: to a peer elsewhere it would be that peer itself.
    """
    default = _default_host(version)
    ips = {ip for ip, _ in _interfaces(version) if not ip.is_link_local}
    ips = {ip for ip in ips if not ip.is_loopback} or ips

    def rank(ip: IPAddress) -> tuple[bool, bool, str]:
        return str(ip) != default, not ip.is_global, str(ip)

    return [str(ip) for ip in sorted(ips, key=rank)]


def _interfaces(
    version: int,
) -> list[tuple[IPAddress, ipaddress.IPv4Network | ipaddress.IPv6Network]]:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    up = {name for name, facts in psutil.net_if_stats().items() if facts.isup}
    found = []
    for name, addresses in psutil.net_if_addrs().items():
        for address in addresses:
            if address.family == family and name in up and address.netmask:
                ip = address.address.partition("%")[0]
                length = _prefix_length(address.netmask)
                found.append(
                    (ipaddress.ip_address(ip), ipaddress.ip_network(f"{ip}/{length}", strict=False))
                )
    return found


def _prefix_length(netmask: str) -> int:
    return int(ipaddress.ip_address(netmask)).bit_count()


def _default_host(version: int) -> str:
    """Our address on the way to the internet; empty without one. Sends nothing."""
    family, far = (
        (socket.AF_INET, "192.88.99.1") if version == 4 else (socket.AF_INET6, "2001:db8::1")
    )
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((far, 9))
            return str(probe.getsockname()[0])
        except OSError:
            return ""
