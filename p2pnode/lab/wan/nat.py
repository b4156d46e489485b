"""NAT by nftables, told to the kernel over netlink: no ``nft`` command is needed.

What the two kinds really are:
- ``cone``: `masquerade persistent`. Linux keeps the port of the inner side as long as nobody else
  uses it towards the same peer, so with one machine behind each NAT the mapping is the same for
  all peers (endpoint-independent); only who was sent something may answer (filtering by address
  and port). That is a port-restricted cone.
- ``symmetric``: `masquerade fully-random`. Each flow gets a port of its own at random.

Unsolicited packets are dropped before conntrack keeps them: otherwise a peer that punches first
would take the very port that our own answer needs.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

from p2pnode.lab.wan import kernel
from p2pnode.lab.wan.emulator import TUN

_NETLINK_NETFILTER = 12
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NFTABLES = 10
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE = (_NFTABLES << 8) | 0, (_NFTABLES << 8) | 3, (_NFTABLES << 8) | 6
_REQUEST, _ACK, _CREATE, _APPEND = 0x1, 0x4, 0x400, 0x800
_ERROR = 0x2
_NESTED = 0x8000
_IPV4 = 2
_HOOK_INPUT, _HOOK_POSTROUTING = 1, 4
_PRIORITY_FILTER, _PRIORITY_SOURCE_NAT = 0, 100
_DROP = 0
_PERSISTENT, _FULLY_RANDOM = 1 << 3, 1 << 4
_REGISTER, _META_OUT_NAME = 1, 7
TABLE = "p2pnode"


def masquerade(namespace: str, is_symmetric: bool) -> None:
    """Make that namespace a NAT router between its inner side and its TUN device.

    Raises OSError when the kernel has no nftables.
    """
    with kernel.visiting(namespace):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
            _send(netlink, _ruleset(_FULLY_RANDOM if is_symmetric else _PERSISTENT))


def _ruleset(flags: int) -> list[bytes]:
    """Messages for: drop what nobody asked for; masquerade what leaves."""
    name = TUN.encode() + b"\0"
    goes_out = [
        _expression("meta", _number(1, _REGISTER) + _number(2, _META_OUT_NAME)),
        _expression(
            "cmp",
            _number(1, _REGISTER)
            + _number(2, 0)
            + _nested(3, _attribute(1, name.ljust(16, b"\0"))),
        ),
    ]
    mask = _expression("masq", _number(1, flags))
    rule = _text(1, TABLE) + _text(2, "leaving") + _nested(4, *goes_out, mask)
    return [
        _message(_NEW_TABLE, _CREATE, _text(1, TABLE)),
        _message(
            _NEW_CHAIN, _CREATE, _chain("coming", "filter", _HOOK_INPUT, _PRIORITY_FILTER, _DROP)
        ),
        _message(
            _NEW_CHAIN,
            _CREATE,
            _chain("leaving", "nat", _HOOK_POSTROUTING, _PRIORITY_SOURCE_NAT, 1),
        ),
        _message(_NEW_RULE, _CREATE | _APPEND, rule),
    ]


def _chain(name: str, kind: str, hook: int, priority: int, policy: int) -> bytes:
    place = _nested(4, _number(1, hook), _number(2, priority))
    return _text(1, TABLE) + _text(3, name) + place + _number(5, policy) + _text(7, kind)


def _expression(name: str, data: bytes) -> bytes:
    return _nested(1, _text(1, name), _nested(2, data))


def _send(netlink: socket.socket, messages: list[bytes]) -> None:
    """Send a batch and hear what the kernel says to each; raises OSError."""
    netlink.settimeout(5.0)
    begin = _packet(_BATCH_BEGIN, 0, struct.pack(">BBH", 0, 0, _NFTABLES))
    end = _packet(_BATCH_END, 0, struct.pack(">BBH", 0, 0, _NFTABLES))
    netlink.send(begin + b"".join(messages) + end)
    for _ in messages:
        answer = netlink.recv(1 << 16)
        _, kind, _, _, _ = struct.unpack_from("=IHHII", answer)
        (code,) = struct.unpack_from("=i", answer, 16)
        if kind == _ERROR and code != 0:
            raise OSError(-code, f"nftables: {os.strerror(-code)}")


def _message(kind: int, flags: int, attributes: bytes) -> bytes:
    return _packet(kind, flags | _ACK, struct.pack(">BBH", _IPV4, 0, 0) + attributes)


def _packet(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, flags | _REQUEST, 0, 0) + payload


def _attribute(kind: int, data: bytes) -> bytes:
    padding = -len(data) % 4
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * padding


def _nested(kind: int, *attributes: bytes) -> bytes:
    return _attribute(kind | _NESTED, b"".join(attributes))


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack(">i", value))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")
