"""Links over real daemons: a peer that is killed comes back under the same key and port."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from p2pnode.errors import PeerError
from p2pnode.net.identity import Identity
from p2pnode.net.libp2p_transport import P2PTransport
from p2pnode.net.link import Link
from p2pnode.net.links import Links


@pytest.fixture
def run() -> Iterator[Path]:
    """A folder with a short path: pytest's own is too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="p2p-", dir="/tmp") as folder:
        yield Path(folder)


@asynccontextmanager
async def links(transport: P2PTransport, *, serves: bool = False) -> AsyncIterator[Links]:
    events = Silent()
    ours = Links(transport, events, software="test/1", connect_timeout_s=3.0, heartbeat=(0.5, 2.0))
    async with ours:
        if serves:
            await ours.serve()
        yield ours


class Silent:
    """Links whose events nobody wants."""

    def on_message(self, link: Link, message: object) -> None:
        pass

    def on_lost(self, link: Link, error: PeerError) -> None:
        pass


@pytest.mark.parametrize("kind", ["tcp", "udp"])
async def test_links_find_a_peer_that_was_killed_and_is_back(run: Path, kind: str) -> None:
    identity = Identity.ephemeral()
    async with P2PTransport(Identity.ephemeral(), run, is_client=True) as client:
        async with P2PTransport(identity, run, host="127.0.0.1") as node, links(node, serves=True):
            addresses = tuple(a for a in node.addresses if f"/{kind}/" in a)
            port = node.port
            await client.connect(identity.peer, addresses)
            os.kill(node.daemon_pid, signal.SIGKILL)
        async with (
            P2PTransport(identity, run, host="127.0.0.1", port=port) as node,
            links(node, serves=True),
            links(client) as ours,
        ):
            link = await ours.connect(identity.peer, addresses)
            assert ours.get(identity.peer) is link
