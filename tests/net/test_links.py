"""Links of a process: control links alone, who watches whom, and guests that vanish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from p2pnode.errors import PeerError, PeerLost, PeerMisbehaved, PeerTimeout
from p2pnode.net.link import Link
from p2pnode.net.links import Links
from p2pnode.net.memory import Line, MemoryNetwork, fake_peer_id
from p2pnode.net.memory_transport import MemoryTransport
from p2pnode.wire.messages import CHAIN, CONTROL, Close

pytestmark = pytest.mark.virtual_time

NEAR, FAR = fake_peer_id(0), fake_peer_id(1)


class Recorder:
    """Keeps what links say."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.lost: list[tuple[str, PeerError]] = []
        self.lost_at: list[float] = []

    def on_message(self, link: Link, message: Any) -> None:
        self.messages.append(message)

    def on_lost(self, link: Link, error: PeerError) -> None:
        self.lost.append((link.traffic, error))
        self.lost_at.append(asyncio.get_running_loop().time())


class End:
    """A peer with links, whose control links have events of their own."""

    def __init__(self, transport: MemoryTransport) -> None:
        self.transport = transport
        self.chain, self.control = Recorder(), Recorder()
        self.links = Links(
            transport,
            self.chain,
            software="test/1",
            connect_timeout_s=3.0,
            heartbeat=(0.5, 2.0),
            control_events=self.control,
        )

    def link(self, other: End, traffic: str = CONTROL) -> Link:
        found = self.links.get(other.transport.peer, traffic)
        assert found is not None
        return found


@asynccontextmanager
async def ends(network: MemoryNetwork, *, serves: bool = True) -> AsyncIterator[tuple[End, End]]:
    """Two peers; the far one accepts links, and the near one unless it is a client."""
    async with network.transport(NEAR) as one, network.transport(FAR) as two:
        near, far = End(one), End(two)
        async with near.links, far.links:
            if serves:
                await near.links.serve()
            await far.links.serve()
            yield near, far


def ether() -> MemoryNetwork:
    return MemoryNetwork(line=Line(latency_s=0.01))


async def control(end: End, other: End) -> Link:
    return await end.links.control(other.transport.peer, other.transport.addresses)


async def connect(end: End, other: End) -> Link:
    return await end.links.connect(other.transport.peer, other.transport.addresses)


def small() -> Close:
    return Close(session=b"s" * 16, layer=0)


async def test_a_control_link_alone_is_opened_once_and_not_watched() -> None:
    network = ether()
    async with ends(network) as (near, far):
        link = await control(near, far)
        assert await control(near, far) is link
        await asyncio.sleep(0.1)
        assert await control(far, near) is far.link(near)
        sent = network.bytes_sent[NEAR, FAR]
        await asyncio.sleep(10)
        assert network.bytes_sent[NEAR, FAR] == sent, "no heartbeat"
        assert near.links.get(FAR) is None
        assert network.streams_opened.total() == 1


async def test_each_class_has_its_own_events() -> None:
    async with ends(ether()) as (near, far):
        chain = await connect(near, far)
        chain.send(small())
        near.link(far).send(small())
        await asyncio.sleep(0.1)
        assert far.chain.messages == [small()]
        assert far.control.messages == [small()]
        near.link(far).end(PeerMisbehaved(FAR, "test"))
        await asyncio.sleep(0.005)
        assert [traffic for traffic, _ in near.control.lost] == [CONTROL]
        assert near.chain.lost == []


async def test_a_ping_measures_and_ends_with_its_link() -> None:
    network = ether()
    async with ends(network) as (near, far):
        link = await control(near, far)
        assert await link.ping() == pytest.approx(0.02, abs=0.001)
        network.silence(FAR, NEAR)
        waiting = link.ping()
        await asyncio.sleep(1)
        assert not waiting.done()
        link.end(PeerLost(FAR, "test"))
        assert waiting.cancelled()
        with pytest.raises(PeerLost):
            link.ping()


async def test_a_peer_that_answers_no_pings_at_all_loses_the_link() -> None:
    network = ether()
    async with ends(network) as (near, far):
        link = await control(near, far)
        network.silence(FAR, NEAR)
        with pytest.raises(PeerLost):
            for _ in range(100):
                link.ping()
        assert isinstance(link.error, PeerTimeout)


async def test_a_session_over_a_link_that_the_peer_has_opened_is_watched_too() -> None:
    network = ether()
    async with ends(network) as (near, far):
        await connect(far, near)
        await asyncio.sleep(0.1)
        assert not near.link(far).is_watched
        await connect(near, far)
        assert near.link(far).is_watched
        network.freeze(FAR)
        frozen_at = asyncio.get_running_loop().time()
        await asyncio.sleep(3.0)
        assert {traffic for traffic, _ in near.chain.lost} == {CHAIN}
        assert near.chain.lost_at[0] - frozen_at < 2.6
        assert all(isinstance(error, PeerTimeout) for _, error in near.chain.lost)
        network.thaw(FAR)


async def test_a_gossip_link_that_a_session_uses_later_is_watched_from_then_on() -> None:
    network = ether()
    async with ends(network) as (near, far):
        await control(near, far)
        await connect(near, far)
        assert network.streams_opened[NEAR, FAR, CONTROL] == 1
        network.freeze(FAR)
        await asyncio.sleep(3.0)
        assert [traffic for traffic, _ in near.chain.lost] == [CHAIN]
        network.thaw(FAR)


@pytest.mark.parametrize("serves", [True, False], ids=["node", "client"])
async def test_a_guest_that_vanishes_is_let_go_within_five_seconds(serves: bool) -> None:
    network = ether()
    async with ends(network, serves=serves) as (near, far):
        await connect(near, far)
        await asyncio.sleep(30)
        assert far.chain.lost == [], "it pings"
        network.silence(NEAR, FAR)
        silent_at = asyncio.get_running_loop().time()
        await asyncio.sleep(6)
        assert [type(error) for _, error in far.chain.lost] == [PeerTimeout]
        assert far.chain.lost_at[0] - silent_at < 5.0
        assert far.links.get(NEAR, CONTROL) is None


async def test_a_guest_that_only_keeps_a_control_link_may_be_quiet_for_two_minutes() -> None:
    async with ends(ether(), serves=False) as (near, far):
        link = await control(near, far)
        await asyncio.sleep(110)
        await link.ping()
        await asyncio.sleep(110)
        assert far.control.lost == []
        await asyncio.sleep(20)
        assert [type(error) for _, error in far.control.lost] == [PeerTimeout]


async def test_a_released_link_ends_well_and_one_that_a_session_uses_stays() -> None:
    async with ends(ether()) as (near, far):
        await control(near, far)
        await far.links.release(NEAR)
        assert near.link(far).is_open, "who has not opened it does not end it"
        await near.links.release(FAR)
        await asyncio.sleep(0.1)
        assert [str(error) for _, error in far.control.lost] == [
            f"peer {NEAR.short}: it closed the link"
        ]
        await connect(near, far)
        await near.links.release(FAR)
        assert near.link(far).is_open


async def test_a_session_whose_control_link_ends_gets_another_one() -> None:
    network = ether()
    async with ends(network) as (near, far):
        await connect(near, far)
        await asyncio.sleep(0.1)
        far.link(near).end(PeerLost(NEAR, "test"))
        await asyncio.sleep(1)
        assert network.streams_opened[NEAR, FAR, CONTROL] == 2
        assert near.chain.lost == []
        assert near.link(far).is_watched


async def test_a_session_that_gets_no_other_control_link_ends() -> None:
    async with ends(ether()) as (near, far):
        await connect(near, far)
        await asyncio.sleep(0.1)
        far.links.shun(NEAR, 60.0)
        far.link(near).end(PeerMisbehaved(NEAR, "test"))
        await asyncio.sleep(1)
        assert [type(error) for _, error in near.chain.lost] == [PeerLost]


async def test_a_peer_that_was_killed_and_is_back_is_reached_at_the_first_attempt() -> None:
    network = ether()
    async with ends(network) as (near, far):
        await control(near, far)
        network.kill(FAR)
        async with network.transport(FAR) as again:
            back = End(again)
            async with back.links:
                await back.links.serve()
                link = await connect(near, back)
                assert near.links.get(FAR) is link
                await asyncio.sleep(5)
                assert near.links.get(FAR) is link, "its control link is a living one, too"


async def test_a_shunned_peer_gets_no_link_until_the_time_is_over() -> None:
    async with ends(ether()) as (near, far):
        far.links.shun(NEAR, 60.0)
        with pytest.raises(PeerError):
            await control(near, far)
        await asyncio.sleep(61)
        assert (await control(near, far)).is_open
