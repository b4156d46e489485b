"""A thousand connections and a thousand streams to a real node: it serves others as before."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from statistics import median

import psutil
import pytest

from p2pnode.errors import PeerError
from p2pnode.net.addresses import split
from p2pnode.net.identity import Identity
from p2pnode.net.libp2p_transport import P2PTransport
from p2pnode.net.link import Link
from p2pnode.net.links import GREET_TIMEOUT_S, Links
from p2pnode.net.transport import ByteStream
from p2pnode.types import PeerId
from p2pnode.wire.messages import CHAIN
from tests.support.swarms import served, short_home

log = logging.getLogger(__name__)

pytestmark = pytest.mark.processes

CROWD = 1000
NUM_PINGS = 40
MAX_AGENT_MB = 20.0
LATE_S = 7.0
"""Exact times are a matter of virtual time, see tests/scenarios."""
BUSY_S = 0.05
"""A round trip is far below a millisecond: what another process does must not decide."""


class Silent:
    """Links whose events nobody wants."""

    def on_message(self, link: Link, message: object) -> None:
        pass

    def on_lost(self, link: Link, error: PeerError) -> None:
        pass


@asynccontextmanager
async def honest(run: Path, peer: PeerId, address: str) -> AsyncIterator[Link]:
    """A control link of somebody who means well."""
    async with P2PTransport(Identity.ephemeral(), run, is_client=True) as transport:
        links = Links(
            transport, Silent(), software="test/1", connect_timeout_s=10.0, heartbeat=(1.0, 30.0)
        )
        async with links:
            yield await links.control(peer, (address,))


async def round_trip_s(link: Link) -> float:
    """Median over some pings."""
    return median([await link.ping() for _ in range(NUM_PINGS)])


def memory_mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1e6


async def ended(stream: ByteStream) -> float:
    """When the other side has ended it."""
    with pytest.raises(PeerError):
        while True:
            await stream.read_exactly(1)
    return time.monotonic()


async def test_a_crowd_costs_the_node_little_and_those_who_mean_well_nothing() -> None:
    """Figures: pytest -n 0 --log-cli-level=info, of this file."""
    with short_home() as home, served(home, "0-26") as (node,):
        peer, address = node.peer, node.address
        agent, daemon = psutil.Process(node.command.process.pid), node.daemon()
        where = split(address)[0].split("/")
        async with honest(home / "one", peer, address) as link:
            alone_s = await round_trip_s(link)
            agent_mb, daemon_mb = memory_mb(agent), memory_mb(daemon)
            with ExitStack() as sockets:
                for _ in range(CROWD):  # they say nothing, not even who they are
                    sockets.enter_context(
                        closing(socket.create_connection((where[2], int(where[4]))))
                    )
                async with P2PTransport(Identity.ephemeral(), home / "two", is_client=True) as two:
                    await two.connect(peer, (address,))
                    streams = [await two.open_stream(peer, CHAIN) for _ in range(CROWD)]
                    opened_at = time.monotonic()
                    crowd_s = await round_trip_s(link)
                    grown_mb = memory_mb(agent) - agent_mb
                    last_ended_at = max([await ended(stream) for stream in streams])
            log.info(
                "crowd: agent_mb=%.1f daemon_mb=%.1f rtt_ms=%.2f crowded_rtt_ms=%.2f",
                grown_mb,
                memory_mb(daemon) - daemon_mb,
                1e3 * alone_s,
                1e3 * crowd_s,
            )
        assert grown_mb < MAX_AGENT_MB
        assert crowd_s <= max(2 * alone_s, BUSY_S)
        assert last_ended_at - opened_at < GREET_TIMEOUT_S + LATE_S
