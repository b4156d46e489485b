"""Calls to other peers: connected first, bounded, and not repeated to the silent."""

from __future__ import annotations

import asyncio

import pytest

from p2pnode.dht.address_book import AddressBook
from p2pnode.dht.calls import CALL_TIMEOUT_S, MAX_QUIET_S, QUIET_S, Calls
from p2pnode.errors import PeerLost, PeerTimeout
from p2pnode.net.memory import fake_peer_id
from p2pnode.types import PeerId

pytestmark = pytest.mark.virtual_time

A = fake_peer_id(0)


class FakePeer:
    """One peer that can be away or frozen, and what reached it."""

    def __init__(self) -> None:
        self.is_frozen = False
        self.is_away = False
        self.events: list[str] = []

    async def connect(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        if self.is_away:
            raise PeerLost(peer, "connection refused")
        self.events.append("connect")

    async def introduce(self, peer: PeerId) -> None:
        self.events.append("introduce")

    async def who_is(self, asked: PeerId, about: PeerId) -> tuple[str, ...]:
        return ()

    async def answer(self) -> str:
        if self.is_frozen:
            await asyncio.sleep(1e6)
        self.events.append("call")
        return "answer"


def now() -> float:
    return asyncio.get_running_loop().time()


def calls_to(peer: FakePeer) -> Calls:
    return Calls(AddressBook(peer.connect, peer.who_is), peer.introduce, monotonic=now)


async def test_a_peer_is_connected_before_each_call_and_told_who_we_are_before_the_first() -> None:
    peer = FakePeer()
    calls = calls_to(peer)
    assert await calls.run(A, peer.answer) == "answer"
    assert await calls.run(A, peer.answer) == "answer"
    assert peer.events == ["connect", "introduce", "call", "connect", "call"]
    assert calls.num_answers == 2


async def test_a_frozen_peer_costs_one_deadline_and_is_then_left_alone() -> None:
    peer = FakePeer()
    peer.is_frozen = True
    calls = calls_to(peer)
    with pytest.raises(PeerTimeout, match="no answer in 3 s"):
        await calls.run(A, peer.answer)
    assert now() == pytest.approx(CALL_TIMEOUT_S)
    with pytest.raises(PeerTimeout, match="a moment ago"):
        await calls.run(A, peer.answer)
    assert now() == pytest.approx(CALL_TIMEOUT_S)


async def test_the_rest_grows_each_time_up_to_a_minute_and_ends_with_an_answer() -> None:
    peer = FakePeer()
    peer.is_away = True
    calls = calls_to(peer)
    for rest_s in (QUIET_S, 2 * QUIET_S, 4 * QUIET_S, 8 * QUIET_S, MAX_QUIET_S, MAX_QUIET_S):
        with pytest.raises(PeerLost, match="cannot be reached"):
            await calls.run(A, peer.answer)
        await asyncio.sleep(rest_s - 0.001)
        with pytest.raises(PeerTimeout, match="a moment ago"):
            await calls.run(A, peer.answer)
        await asyncio.sleep(0.002)
    peer.is_away = False
    assert await calls.run(A, peer.answer) == "answer"
    peer.is_away = True
    with pytest.raises(PeerLost):
        await calls.run(A, peer.answer)
    await asyncio.sleep(QUIET_S + 0.001)
    with pytest.raises(PeerLost, match="cannot be reached"):
        await calls.run(A, peer.answer)


async def test_a_peer_that_comes_back_can_be_forgiven() -> None:
    peer = FakePeer()
    peer.is_away = True
    calls = calls_to(peer)
    with pytest.raises(PeerLost):
        await calls.run(A, peer.answer)
    peer.is_away = False
    calls.forgive(A)
    assert await calls.run(A, peer.answer) == "answer"


async def test_after_a_failure_the_peer_is_connected_to_anew() -> None:
    peer = FakePeer()
    calls = calls_to(peer)
    await calls.run(A, peer.answer)
    peer.is_frozen = True
    with pytest.raises(PeerTimeout):
        await calls.run(A, peer.answer)
    peer.is_frozen = False
    calls.forgive(A)
    peer.events.clear()
    await calls.run(A, peer.answer)
    assert peer.events == ["connect", "introduce", "call"]


async def test_closing_ends_the_calls_under_way_and_refuses_new_ones() -> None:
    peer = FakePeer()
    peer.is_frozen = True
    calls = calls_to(peer)
    async with asyncio.TaskGroup() as group:
        call = group.create_task(_failure(calls, peer))
        await asyncio.sleep(1)
        calls.close()
    assert call.result() is PeerTimeout
    assert now() == pytest.approx(1.0)
    assert await _failure(calls, peer) is PeerLost


async def _failure(calls: Calls, peer: FakePeer) -> type[BaseException]:
    with pytest.raises((PeerTimeout, PeerLost)) as caught:
        await calls.run(A, peer.answer)
    return caught.type
