"""Dialling back, and having the other side dial, on the real daemon."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from p2pnode.errors import PeerError
from p2pnode.net.identity import Identity
from p2pnode.net.libp2p_transport import P2PTransport
from p2pnode.net.reach import Reach

LOOPBACK = "127.0.0.1"
HOST = f"/ip4/{LOOPBACK}"


@pytest.fixture
def run() -> Iterator[Path]:
    """A folder with a short path: pytest's own is too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="p2p-", dir="/tmp") as folder:
        yield Path(folder)


@asynccontextmanager
async def peers(run: Path, *clients: bool) -> AsyncIterator[list[tuple[P2PTransport, Reach]]]:
    """Participants on loopback; those marked are clients, which announce no address."""
    async with AsyncExitStack() as stack:
        made = []
        for is_client in clients:
            ground = P2PTransport(Identity.ephemeral(), run, host=LOOPBACK, is_client=is_client)
            await stack.enter_async_context(ground)
            reach = await stack.enter_async_context(Reach(ground, is_client=is_client))
            made.append((ground, reach))
        yield made


async def test_a_node_is_dialled_back_where_it_is_seen(run: Path) -> None:
    async with peers(run, False, False) as ((helper_ground, helper), (ground, ours)):
        await ours.connect(helper.peer, helper.addresses)
        (seen_at,) = (await helper_ground.observed()).values()
        assert [each.startswith(f"{HOST}/") for each in seen_at] == [True]
        await ours.check()
        assert ours.is_dialable
        assert ours.addresses == ground.addresses


async def test_what_listens_and_is_no_peer_does_not_answer(run: Path) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, LOOPBACK, 0)
    port = server.sockets[0].getsockname()[1]
    async with server, peers(run, False) as ((ground, _),):
        assert await ground.answers(ground.addresses[0])
        assert not await ground.answers(f"{HOST}/tcp/{port}/p2p/{ground.peer}")
        assert not await ground.answers(f"{HOST}/tcp/1/p2p/{ground.peer}")
        assert not await ground.answers(ground.addresses[1])
        assert not await ground.answers("nonsense")


async def test_a_client_is_reached_by_asking_it_to_dial(run: Path) -> None:
    async with peers(run, False, True, False) as ((_, helper), (_, client), (_, node)):
        assert client.addresses == ()
        for each in (client, node):
            await each.connect(helper.peer, helper.addresses)
        await node.connect(client.peer, ())
        with pytest.raises(PeerError, match="does not speak"):
            await node.open_stream(client.peer, "/test/unknown/1")


async def test_a_client_has_the_other_side_dial_it(run: Path) -> None:
    async with peers(run, False, True, False) as ((_, helper), (_, client), (_, node)):
        for each in (client, node):
            await each.connect(helper.peer, helper.addresses)
        await client.connect(node.peer, ())
        with pytest.raises(PeerError, match="does not speak"):
            await client.open_stream(node.peer, "/test/unknown/1")
