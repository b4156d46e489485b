"""Network namespaces: one per machine, a second one for the NAT in front of it, none left behind.

A name carries the process id of the lab that made it (``p2pw-4711-3``), so that namespaces of a
lab that was killed are known as stale and removed at the next start.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from p2pnode.errors import LocalError
from p2pnode.lab.wan import kernel
from p2pnode.lab.wan.emulator import TUN
from p2pnode.lab.wan.nat import masquerade

PREFIX = "p2pw"
MTU = 1500
TX_QUEUE = 2000
INNER_HOST, INNER_GATEWAY = "10.0.0.2", "10.0.0.1"
COMMAND_WITHIN_S = 20.0

Nat = Literal["none", "cone", "symmetric"]


class NoNamespaces(LocalError):
    """This machine does not let us make network namespaces or TUN devices."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """Where a machine's processes live, and where its packets leave from."""

    name: str
    """Of its processes."""
    outer: str
    """Has the TUN device; another one than ``name`` behind a NAT."""
    address: str
    """How the others see it: public."""
    nat: Nat


def check_rights() -> None:
    """Raises NoNamespaces, with the remedy, when there is no lab to be had here."""
    remedy = "run as root on Linux, or use the in-memory network"
    if os.geteuid() != 0:
        raise NoNamespaces(f"network namespaces need root; {remedy}")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise NoNamespaces(f"/dev/net/tun is missing or closed; load the module tun, {remedy}")
    name = f"{PREFIX}-{os.getpid()}-probe"
    _ip("netns", "add", name)
    _ip("netns", "del", name)


def remove_stale() -> list[str]:
    """Remove namespaces whose lab is dead; returns their names."""
    stale = [name for name in _ours() if not Path(f"/proc/{_maker(name)}").exists()]
    for name in stale:
        with suppress(LocalError):  # another lab may be at it, too
            _ip("netns", "del", name)
    return stale


async def make(index: int, nat: Nat = "none") -> Namespace:
    """A namespace for the machine of that number; its TUN device is still missing."""
    name = f"{PREFIX}-{os.getpid()}-{index}"
    outer = name if nat == "none" else f"{name}-nat"
    for each in dict.fromkeys((name, outer)):
        await _ip_async("netns", "add", each)
        await asyncio.to_thread(_without_ipv6, each)
    await _batch(name, "link set lo up")
    return Namespace(name, outer, _address(index), nat)


async def connect(namespace: Namespace) -> None:
    """Give it its address, once the emulator has made its TUN device."""
    await _batch(
        namespace.outer,
        f"addr add {namespace.address}/32 dev {TUN}",
        f"link set {TUN} mtu {MTU} txqueuelen {TX_QUEUE} up",
        f"route add default dev {TUN}",
    )
    if namespace.nat == "none":
        return
    await _batch(
        namespace.outer,
        f"link add inner type veth peer name eth0 netns {namespace.name}",
        f"addr add {INNER_GATEWAY}/24 dev inner",
        "link set inner up",
    )
    await _batch(
        namespace.name,
        f"addr add {INNER_HOST}/24 dev eth0",
        "link set eth0 up",
        f"route add default via {INNER_GATEWAY}",
    )
    await asyncio.to_thread(masquerade, namespace.outer, namespace.nat == "symmetric")


async def remove(namespaces: Iterable[Namespace]) -> None:
    """Take them away, with their interfaces; their processes must have ended."""
    for namespace in namespaces:
        for name in dict.fromkeys((namespace.name, namespace.outer)):
            with suppress(LocalError):
                await _ip_async("netns", "del", name)


def _address(index: int) -> str:
    """77.b.c.1, a /16 of its own for each machine: peers are counted by address groups.

    libp2p takes the ranges that are set aside for documentation for unroutable.
    """
    return f"77.{index % 250 + 1}.{index // 250}.1"


def _ours() -> list[str]:
    try:
        names = [path.name for path in kernel.NAMESPACES.iterdir()]
    except FileNotFoundError:  # no namespace was ever made
        return []
    return [name for name in names if name.startswith(f"{PREFIX}-") and _maker(name).isdecimal()]


def _maker(name: str) -> str:
    return name.split("-")[1]


def _without_ipv6(name: str) -> None:
    with kernel.visiting(name), suppress(OSError):  # a kernel without IPv6
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")


async def _batch(name: str, *commands: str) -> None:
    """Run ``ip`` commands in a namespace, one after the other."""
    await _ip_async("-n", name, "-batch", "-", text="\n".join(commands) + "\n")


async def _ip_async(*arguments: str, text: str = "") -> None:
    await asyncio.to_thread(_ip, *arguments, text=text)


def _ip(*arguments: str, text: str = "") -> None:
    """Run ``ip``; raises NoNamespaces with what it said."""
    try:
        done = subprocess.run(
            ["ip", *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=COMMAND_WITHIN_S,
            check=False,
        )
    except FileNotFoundError:
        what = "the command ip is missing; install iproute2"
        raise NoNamespaces(f"{what}, or use the in-memory network") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split())[:200]
        raise NoNamespaces(f"ip {' '.join(arguments)}: {said}; are we root in a container?")
