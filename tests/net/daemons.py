"""A node that echoes and a client, each with its daemon, on loopback."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from p2pnode.net.identity import Identity
from p2pnode.net.libp2p_transport import P2PTransport
from p2pnode.net.transport import ByteStream

ECHO = "/test/echo/1"
Pair = tuple[P2PTransport, P2PTransport]


@pytest.fixture
def run() -> Iterator[Path]:
    """A folder with a short path: pytest's own is too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="p2p-", dir="/tmp") as folder:
        yield Path(folder)


async def echo(stream: ByteStream) -> None:
    while True:
        stream.write(await stream.read_exactly(4))
        await stream.drain()


@asynccontextmanager
async def node_and_client(run: Path) -> AsyncIterator[Pair]:
    """A node that echoes, and a client that is not yet connected to it."""
    async with (
        P2PTransport(Identity.ephemeral(), run, host="127.0.0.1") as node,
        P2PTransport(Identity.ephemeral(), run, is_client=True) as client,
    ):
        await node.serve(ECHO, echo)
        yield node, client
