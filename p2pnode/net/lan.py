"""Nodes of the same network, found by multicast DNS (RFC 6762, 6763): nobody has to be named.

Rules:
- a node shows its peer id, port and private addresses; a client looks and shows nothing;
- what is heard is a hint like any other: at most `MAX_FOUND` peers, only at addresses of networks
  that this machine is part of; who answers there must prove its id;
- where multicast does not work, there is nobody, and a warning.

Members of a private swarm neither show themselves nor look: see who calls this.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Iterable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from zeroconf import Error as ZeroconfError
from zeroconf import InterfaceChoice, IPVersion, ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from p2pnode.net import seen
from p2pnode.tasks import Tasks
from p2pnode.types import PeerId

log = logging.getLogger(__name__)

SERVICE = "_p2pnode._udp.local."
MAX_FOUND = 32
MAX_ASKED = 8
"""Names that are looked up at the same time."""
ASK_WITHIN_S = 1.5
FIRST_WITHIN_S = 3.0
SHOW_WITHIN_S = 3.0


class Lan:
    """Looks as long as it is open (``async with``), and shows us from `show` on.

    hosts: the interfaces to use, by their IPv4 addresses; empty: all
    """

    def __init__(self, hosts: tuple[str, ...] = ()) -> None:
        self._hosts = hosts
        self._found: dict[str, tuple[str, ...]] = {}
        self._asked: set[str] = set()
        self.changed = asyncio.Event()
        """Set when somebody was found, or has left."""
        self._own = ""
        self._zeroconf: AsyncZeroconf | None = None
        self._tasks = Tasks()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._tasks)
            interfaces: Any = list(self._hosts) or InterfaceChoice.All
            try:
                _check_ours(self._hosts)  # the library leaves sockets open when it fails
                opened = AsyncZeroconf(interfaces=interfaces, ip_version=IPVersion.V4Only)
            except (OSError, ZeroconfError) as error:
                log.warning("nobody is found on this network: no multicast: error=%s", error)
            else:
                stack.push_async_callback(opened.async_close)
                browser = AsyncServiceBrowser(opened.zeroconf, SERVICE, handlers=[self._on_change])
                stack.push_async_callback(browser.async_cancel)
                self._zeroconf = opened
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zeroconf = None
        await self._stack.__aexit__(kind, error, trace)

    def found(self) -> tuple[str, ...]:
        """Addresses of the peers that show themselves now, each ending in ``/p2p/PEER``."""
        return tuple(address for addresses in self._found.values() for address in addresses)

    async def look(self) -> None:
        """Return as soon as anybody is found, or after `FIRST_WITHIN_S`."""
        if self._zeroconf is None:
            return
        try:
            async with asyncio.timeout(FIRST_WITHIN_S):
                while not self._found:
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            log.debug("nobody is found on this network yet")

    async def show(self, peer: PeerId, addresses: Iterable[str]) -> None:
        """Tell the network that a peer of ours listens at these, until the block is left."""
        if self._zeroconf is None:
            return
        hosts, port = shown(addresses)
        if not hosts:
            return
        self._own = f"{peer}.{SERVICE}"
        info = AsyncServiceInfo(
            SERVICE,
            self._own,
            addresses=[ipaddress.ip_address(host).packed for host in hosts],
            port=port,
            server=f"{peer}.local.",
        )
        try:
            async with asyncio.timeout(SHOW_WITHIN_S):
                await self._zeroconf.async_register_service(info)
        except (OSError, TimeoutError, ZeroconfError) as error:
            log.warning("not shown on this network: error=%r", error)

    def _on_change(self, *, name: str, state_change: ServiceStateChange, **_: Any) -> None:
        """Somebody came, changed or left; called on the loop."""
        if state_change is ServiceStateChange.Removed:
            self._found.pop(name, None)
            self.changed.set()
        elif name != self._own and name not in self._asked and self._zeroconf is not None:
            if len(self._asked) < MAX_ASKED and len(self._found) < MAX_FOUND:
                self._asked.add(name)
                self._tasks.start(self._ask(self._zeroconf, name), name="lan-ask")

    async def _ask(self, zeroconf: AsyncZeroconf, name: str) -> None:
        info = AsyncServiceInfo(SERVICE, name)
        try:
            async with asyncio.timeout(2 * ASK_WITHIN_S):
                is_told = await info.async_request(zeroconf.zeroconf, ASK_WITHIN_S * 1000)
        except (OSError, TimeoutError, ZeroconfError) as error:
            log.debug("not told: error=%r", error)
            return
        finally:
            self._asked.discard(name)
        hosts = info.parsed_addresses(IPVersion.V4Only) if is_told else []
        addresses = heard(name, hosts, info.port)
        if addresses:
            self._found[name] = addresses
            self.changed.set()


def _check_ours(hosts: Iterable[str]) -> None:
    """Raises OSError when one of them is no address of this machine."""
    for host in hosts:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))


def shown(addresses: Iterable[str]) -> tuple[list[str], int]:
    """The hosts and the port of our own TCP addresses that are private; ([], 0) without any."""
    hosts, ports = [], []
    for address in seen.private(addresses):
        host, rest = seen.split_host(address)
        if host.startswith("/ip4/") and rest.startswith("/tcp/"):
            hosts.append(host.removeprefix("/ip4/"))
            ports.append(int(rest.removeprefix("/tcp/")))
    return list(dict.fromkeys(hosts)), ports[0] if ports else 0


def heard(name: str, hosts: Iterable[str], port: int | None) -> tuple[str, ...]:
    """The addresses in what somebody shows, QUIC and TCP; none where it makes no sense."""
    try:
        peer = PeerId.parse(name.removesuffix(f".{SERVICE}"))
    except ValueError:
        return ()
    if port is None or not 0 < port < 1 << 16:
        return ()
    near = [f"/ip4/{host}" for host in hosts if seen.is_near([f"/ip4/{host}"])]
    return tuple(
        f"{host}{rest}/p2p/{peer}"
        for host in near[: seen.MAX_ADDRESSES // 2]
        for rest in (f"/tcp/{port}", f"/udp/{port}/quic-v1")
    )
