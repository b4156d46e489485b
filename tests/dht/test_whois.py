"""Saying where we are and asking where others are, over the in-memory network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from p2pnode.dht.address_book import AddressBook
from p2pnode.dht.whois import WHOIS, WhoIsServer, ask
from p2pnode.errors import PeerLost, PeerMisbehaved
from p2pnode.net.memory import MemoryNetwork, fake_peer_id
from p2pnode.net.memory_transport import MemoryTransport
from p2pnode.net.questions import MAX_MESSAGE_BYTES
from p2pnode.net.transport import ByteStream
from p2pnode.types import PeerId

pytestmark = pytest.mark.virtual_time

A, B, C = (fake_peer_id(number) for number in range(3))
C_ADDRESS = f"/ip4/192.0.2.3/tcp/4001/p2p/{C}"


async def nobody(asked: PeerId, about: PeerId) -> tuple[str, ...]:
    return ()


@asynccontextmanager
async def asker_and_server() -> AsyncIterator[tuple[MemoryTransport, AddressBook]]:
    """A is connected to B, which answers from the book."""
    network = MemoryNetwork()
    async with network.transport(A) as a, network.transport(B) as b:
        book = AddressBook(b.connect, nobody)
        await b.serve(WHOIS, WhoIsServer(book, b).handle)
        await a.connect(B, b.addresses)
        yield a, book


async def test_a_peer_tells_the_addresses_that_it_knows() -> None:
    async with asker_and_server() as (a, book):
        book.learn(C, [C_ADDRESS])
        assert await ask(a, B, C, is_client=False) == (C_ADDRESS,)
        assert await ask(a, B, A, is_client=False) == a.addresses


async def test_a_peer_tells_its_own_addresses() -> None:
    async with asker_and_server() as (a, _):
        (address,) = await ask(a, B, B, is_client=False)
        assert address.endswith(B)


async def test_who_asks_introduces_itself() -> None:
    async with asker_and_server() as (a, book):
        assert await ask(a, B, None, is_client=False) == ()
        assert book.addresses(A) == a.addresses


async def test_a_client_does_not_say_where_it_is() -> None:
    async with asker_and_server() as (a, book):
        await ask(a, B, None, is_client=True)
        assert book.addresses(A) == ()


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\0", b"\xff\xff" + b"x" * 100, b"\0\x05hello", b"\0\0", b"\0\x01\x80"],
)
async def test_garbage_ends_one_stream_and_nothing_else(garbage: bytes) -> None:
    async with asker_and_server() as (a, _):
        stream = await a.open_stream(B, WHOIS)
        stream.write(garbage)
        with pytest.raises(PeerLost):
            async with asyncio.timeout(30):
                await stream.read_exactly(1)
        stream.close()
        assert await ask(a, B, None, is_client=False) == ()


@pytest.mark.parametrize(
    "answer",
    [
        (MAX_MESSAGE_BYTES + 1).to_bytes(2, "big"),
        b"\0\x05hello",
        b"\0\x0f\x82\xa4kind\xa5known\xa1x\x01",
    ],
)
async def test_a_wrong_answer_is_the_peers_fault(answer: bytes) -> None:
    async def lie(stream: ByteStream) -> None:
        stream.write(answer)
        await stream.read_exactly(1000)

    network = MemoryNetwork()
    async with network.transport(A) as a, network.transport(B) as b:
        await b.serve(WHOIS, lie)
        await a.connect(B, b.addresses)
        with pytest.raises(PeerMisbehaved):
            await ask(a, B, C, is_client=False)


async def test_a_peer_that_does_not_speak_the_protocol_is_lost() -> None:
    network = MemoryNetwork()
    async with network.transport(A) as a, network.transport(B) as b:
        await a.connect(B, b.addresses)
        with pytest.raises(PeerLost):
            await ask(a, B, C, is_client=False)
