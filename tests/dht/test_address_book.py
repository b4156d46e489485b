"""Whom to believe about addresses, and asking around."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from p2pnode.dht.address_book import MAX_ADDRESSES, MAX_PEERS, AddressBook, valid_addresses
from p2pnode.errors import PeerLost
from p2pnode.net.memory import fake_peer_id
from p2pnode.types import PeerId

A, B, C, D = (fake_peer_id(number) for number in range(4))


def at(peer: PeerId, port: int) -> str:
    return f"/ip4/192.0.2.1/tcp/{port}/p2p/{peer}"


class FakeWorld:
    """Peers that listen at one address each, and what they know about others."""

    def __init__(self, listening: Mapping[PeerId, str]) -> None:
        self.listening = listening
        self.knowledge: dict[tuple[PeerId, PeerId], tuple[str, ...]] = {}
        self.dials: list[tuple[PeerId, tuple[str, ...]]] = []
        self.questions: list[tuple[PeerId, PeerId]] = []

    async def connect(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        self.dials.append((peer, addresses))
        if self.listening.get(peer) not in addresses:
            raise PeerLost(peer, "connection refused")

    async def who_is(self, asked: PeerId, about: PeerId) -> tuple[str, ...]:
        self.questions.append((asked, about))
        if asked not in self.listening:
            raise PeerLost(asked, "is gone")
        return self.knowledge.get((asked, about), ())


def book_of(world: FakeWorld) -> AddressBook:
    return AddressBook(world.connect, world.who_is)


async def test_a_known_address_is_dialled_without_asking_anybody() -> None:
    world = FakeWorld({A: at(A, 1)})
    book = book_of(world)
    book.learn(A, [at(A, 1)])
    await book.connect(A)
    assert world.questions == []


async def test_who_told_us_is_asked_for_the_address() -> None:
    world = FakeWorld({A: at(A, 1), B: at(B, 2)})
    world.knowledge[B, A] = (at(A, 1),)
    book = book_of(world)
    book.heard(A, teller=B)
    await book.connect(A)
    assert book.addresses(A) == (at(A, 1),), "kept, because it was right"


async def test_an_address_that_no_longer_works_is_asked_for_again() -> None:
    world = FakeWorld({A: at(A, 9), B: at(B, 2)})
    world.knowledge[B, A] = (at(A, 9),)
    book = book_of(world)
    book.learn(A, [at(A, 1)])
    book.heard(A, teller=B)
    await book.connect(A)
    assert book.addresses(A) == (at(A, 9),)


async def test_the_next_teller_is_asked_when_one_is_gone_or_wrong() -> None:
    world = FakeWorld({A: at(A, 1), B: at(B, 2), C: at(C, 3)})
    world.knowledge[B, A] = (at(A, 1),)
    world.knowledge[C, A] = (at(A, 666),)
    book = book_of(world)
    for teller in (B, C, D):
        book.heard(A, teller)
    await book.connect(A)
    assert world.questions == [(D, A), (C, A), (B, A)]


async def test_hearsay_that_proves_wrong_is_not_kept() -> None:
    world = FakeWorld({B: at(B, 2)})
    world.knowledge[B, A] = (at(A, 1),)
    book = book_of(world)
    book.heard(A, teller=B)
    with pytest.raises(PeerLost, match="cannot be reached"):
        await book.connect(A)
    assert book.addresses(A) == ()


async def test_a_peer_that_nobody_mentioned_cannot_be_reached() -> None:
    with pytest.raises(PeerLost, match="cannot be reached"):
        await book_of(FakeWorld({})).connect(A)


def test_only_addresses_of_that_peer_are_taken() -> None:
    book = book_of(FakeWorld({}))
    book.learn(
        A, [at(B, 1), "", "/p2p/" + A, "x" + at(A, 1), at(A, 1) + "\n", "/ip4/\x1b/p2p/" + A]
    )
    assert book.addresses(A) == ()
    book.learn(A, [at(A, 1)])
    book.learn(A, [at(B, 1)])
    assert book.addresses(A) == (at(A, 1),), "what is not valid changes nothing"


def test_addresses_per_peer_are_bounded_and_unrepeated() -> None:
    many = [at(A, port // 2) for port in range(100)]
    assert valid_addresses(A, many) == tuple(at(A, port) for port in range(MAX_ADDRESSES))


def test_the_book_forgets_the_oldest_beyond_its_size() -> None:
    book = book_of(FakeWorld({}))
    for number in range(MAX_PEERS + 1):
        peer = PeerId(f"{number:052d}")
        book.learn(peer, [at(peer, 1)])
    assert book.addresses(PeerId(f"{0:052d}")) == ()
    assert book.addresses(PeerId(f"{MAX_PEERS:052d}")) != ()
