"""Addresses as others see them: a peer may say its port, and we know its host.

So nobody can be made to dial a third machine: the host is where the question came from. To punch,
we dial what a helper says it sees: at most two public hosts, no port of well-known services.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable

from p2pnode.net import addresses
from p2pnode.types import PeerId

MAX_ADDRESSES = 8
MAX_PUNCHED = 2
MIN_PUNCHED_PORT = 1024

_FORM = re.compile(
    r"(/(?:ip4|ip6|memory)/[0-9a-f.:]{1,45})(/tcp/[0-9]{1,5}|/udp/[0-9]{1,5}/quic-v1|)"
)


def split_host(address: str) -> tuple[str, str]:
    """``/ip4/192.0.2.7`` and the rest, without the peer; ValueError for a name and for nonsense."""
    match = _FORM.fullmatch(address.partition("/p2p/")[0])
    if match is None:
        raise ValueError(f"{address[:80]!r} has no host that can be seen")
    return match[1], match[2]


def is_form(address: str) -> bool:
    """Whether an address is a host and a port, over TCP or QUIC, and nothing else."""
    return _FORM.fullmatch(address) is not None


def hosts_of(claimed: Iterable[str]) -> set[str]:
    """The hosts in addresses; names have none."""
    return {host for host, _, _ in _parts(claimed)}


def as_seen(peer: PeerId, claimed: Iterable[str], hosts: Iterable[str]) -> tuple[str, ...]:
    """The ports that a peer claims, at the hosts where it is seen; TCP and QUIC as it claims."""
    rests = list(dict.fromkeys((_kind(host), rest) for host, rest, _ in _parts(claimed)))
    seen = [
        f"{host}{rest}/p2p/{peer}" for host in hosts for kind, rest in rests if kind == _kind(host)
    ]
    return tuple(dict.fromkeys(seen))[:MAX_ADDRESSES]


def over_tcp(claimed: Iterable[str]) -> tuple[str, ...]:
    """Those which a plain connection can try (in memory: all)."""
    return tuple(address for _, rest, address in _parts(claimed) if not rest.startswith("/udp"))


def private(claimed: Iterable[str]) -> tuple[str, ...]:
    """Those that mean something in the peer's own networks only; at most `MAX_ADDRESSES`."""
    found = [address for host, _, address in _parts(claimed) if is_private(host)]
    return tuple(found)[:MAX_ADDRESSES]


def punchable(peer: PeerId, observed: Iterable[str]) -> tuple[str, ...]:
    """Where a peer is seen over QUIC, for those who cannot dial it; at most `MAX_PUNCHED`.

    QUIC is dialled from the very port that it listens on, so the hole that a dial makes in a NAT
    leads to a listener. TCP has no such hole that p2pd could use.
    """
    found = [
        f"{host}{rest}/p2p/{peer}" for host, rest, _ in _parts(observed) if _is_hole(host, rest)
    ]
    return tuple(dict.fromkeys(found))[:MAX_PUNCHED]


def is_private(host: str) -> bool:
    """Whether a host is an IP address of a private network, or loopback."""
    try:
        return ipaddress.ip_address(host.rpartition("/")[2]).is_private
    except ValueError:
        return False


def is_near(hosts: Collection[str]) -> bool:
    """Whether one of these is this machine, or in a network that it is part of."""
    for host in hosts:
        try:
            if addresses.is_near(addresses.parse(f"{host}/tcp/1")):
                return True
        except ValueError:
            continue
    return False


def _parts(claimed: Iterable[str]) -> Iterable[tuple[str, str, str]]:
    for address in claimed:
        try:
            yield *split_host(address), address
        except ValueError:
            continue


def _is_hole(host: str, rest: str) -> bool:
    if _kind(host) == "memory":
        return True
    if not rest.startswith("/udp/") or not MIN_PUNCHED_PORT <= int(rest.split("/")[2]) < 1 << 16:
        return False
    try:
        ip = ipaddress.ip_address(host.rpartition("/")[2])
    except ValueError:
        return False
    return ip.is_global and not ip.is_multicast


def _kind(host: str) -> str:
    return host.split("/")[1]
