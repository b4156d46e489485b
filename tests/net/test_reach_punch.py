"""Two peers that nobody can dial: both dial at once, where a third sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from p2pnode.errors import PeerError, PeerLost, PeerTimeout
from p2pnode.net import seen
from p2pnode.net.memory import Line, MemoryNetwork, fake_peer_id
from p2pnode.net.memory_transport import CONNECT_TIMEOUT_S, MemoryTransport
from p2pnode.net.questions import answer, ask
from p2pnode.net.reach import Reach
from p2pnode.net.reach_helpers import MAX_FAILED, PUNCH_AGAIN_S, PUNCH_WITHIN_S
from p2pnode.net.reach_messages import REACH, Meet, Met, Punch
from p2pnode.net.transport import ByteStream, StreamHandler
from p2pnode.types import PeerId

LATENCY_S = 0.02
ROUND_TRIP_S = 2 * LATENCY_S
ASK_S = 2 * ROUND_TRIP_S
NOBODY = fake_peer_id(99)

in_virtual_time = pytest.mark.virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


class FakeNats:
    """Who is behind a cone NAT, and who sends packets to whom at the moment."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.cones: set[PeerId] = set()
        self.num_dials = 0
        self.num_sent = 0
        """Addresses that were dialled, of whomever."""
        self._holes: dict[tuple[PeerId, PeerId], asyncio.Event] = {}

    def hole(self, inside: PeerId, outside: PeerId) -> asyncio.Event:
        """Set while packets of one may come in to the other: that one has sent some."""
        return self._holes.setdefault((inside, outside), asyncio.Event())


class FakeGround(MemoryTransport):
    """Behind a NAT that lets in only who was sent something; a dial is repeated until then."""

    nats: FakeNats

    async def connect(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        nats = self.nats
        nats.num_sent += len(addresses)
        if nats.network.are_connected(self.peer, peer) or not nats.network.is_hidden(peer):
            await super().connect(peer, addresses)
            return
        nats.num_dials += 1
        there = nats.network.transports[peer]
        is_right = any(address in there.addresses for address in addresses)
        if is_right and nats.cones.issuperset((self.peer, peer)):
            nats.hole(self.peer, peer).set()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.sleep(LATENCY_S if is_right else CONNECT_TIMEOUT_S)
                await nats.hole(peer, self.peer).wait()
                await asyncio.sleep(ROUND_TRIP_S)
                nats.network.connect(self.peer, peer)
        except TimeoutError as error:
            raise PeerTimeout(peer, "did not answer") from error


@asynccontextmanager
async def peers(*kinds: str) -> AsyncIterator[tuple[FakeNats, list[Reach]]]:
    """Participants: ``open``, or behind a ``cone`` or ``symmetric`` NAT; all know the first."""
    nats = FakeNats(MemoryNetwork(line=Line(latency_s=LATENCY_S)))
    async with AsyncExitStack() as stack:
        made: list[Reach] = []
        for number, kind in enumerate(kinds):
            ground = FakeGround(nats.network, fake_peer_id(number), number + 1)
            ground.nats = nats
            made.append(
                await stack.enter_async_context(Reach(await stack.enter_async_context(ground)))
            )
            if kind != "open":
                nats.network.hide(ground.peer)
            if kind == "cone":
                nats.cones.add(ground.peer)
            if number:
                await made[-1].connect(made[0].peer, made[0].addresses)
                await made[-1].check()
        nats.num_sent = 0
        yield nats, made


@in_virtual_time
async def test_two_behind_cone_nats_meet() -> None:
    async with peers("open", "cone", "cone") as (nats, (_, one, other)):
        assert (one.is_dialable, other.is_dialable) == (False, False)
        began = now()
        await one.connect(other.peer, ())
        # The question, that of the helper, and a dial that finds the other side's hole open.
        assert now() - began <= 2 * ASK_S + LATENCY_S + ROUND_TRIP_S + 0.021
        assert nats.network.are_connected(one.peer, other.peer)


@in_virtual_time
@pytest.mark.parametrize("kinds", [("cone", "symmetric"), ("symmetric", "symmetric")])
async def test_symmetric_nats_keep_apart_which_is_known_soon_and_remembered(
    kinds: tuple[str, str],
) -> None:
    async with peers("open", *kinds) as (nats, (_, one, other)):
        began = now()
        with pytest.raises(PeerLost, match="no hole could be punched"):
            await one.connect(other.peer, ())
        assert now() - began <= 2 * ASK_S + PUNCH_WITHIN_S + 0.021
        began, num_dials = now(), nats.num_dials
        with pytest.raises(PeerLost, match="neither can we"):
            await one.connect(other.peer, ())
        assert (now(), nats.num_dials) == (began, num_dials)
        await asyncio.sleep(PUNCH_AGAIN_S)
        with pytest.raises(PeerLost, match="no hole could be punched"):
            await one.connect(other.peer, ())


@in_virtual_time
async def test_who_can_be_dialled_does_not_punch() -> None:
    async with peers("open", "open", "cone") as (nats, (_, one, behind)):
        assert one.is_dialable
        await one.connect(behind.peer, ())
        assert nats.num_dials == 0


@in_virtual_time
async def test_without_anybody_in_common_nothing_is_dialled() -> None:
    async with peers("open", "cone", "cone") as (nats, (helper, one, other)):
        nats.network.disconnect(other.peer, helper.peer)
        with pytest.raises(PeerLost, match="nobody we know could help"):
            await one.connect(other.peer, ())
        assert nats.num_dials == 0


@in_virtual_time
async def test_a_helper_that_lies_does_not_keep_the_others_from_helping() -> None:
    async with peers("open", "cone", "cone", "open") as (nats, (_, one, other, liar)):
        await one.connect(liar.peer, liar.addresses)
        await liar.serve(REACH, lies(Met(is_known=True, addresses=("/memory/77",))))
        began = now()
        await one.connect(other.peer, ())
        assert now() - began <= PUNCH_WITHIN_S + 1.0
        assert nats.network.are_connected(one.peer, other.peer)


@in_virtual_time
async def test_helpers_that_lie_make_us_dial_a_few_times_only() -> None:
    async with peers("open", "cone", "cone", *["open"] * 5) as (nats, (_, one, _, *liars)):
        where = tuple(f"/memory/{number}" for number in range(70, 90))
        for liar in liars:
            await one.connect(liar.peer, liar.addresses)
            await liar.serve(REACH, lies(Met(is_known=True, addresses=where)))
        nats.num_sent = 0
        with pytest.raises(PeerError):
            await one.connect(NOBODY, ())
        assert nats.num_sent <= MAX_FAILED * seen.MAX_PUNCHED


# --- what strangers may ask


@in_virtual_time
async def test_a_peer_that_is_told_to_meet_dials_for_a_moment_and_answers_before() -> None:
    async with peers("open", "open", "cone") as (_, (asked, asker, behind)):
        began = now()
        meet = Meet(wanted_by=behind.peer, addresses=("/memory/3",))
        assert await ask(asker, asked.peer, REACH, meet, Met) == Met(is_known=True)
        assert now() - began <= ASK_S + 0.001


@in_virtual_time
@pytest.mark.parametrize("addresses", [(), ("/ip4/10.0.0.1/udp/4001/quic-v1",), ("nonsense",)])
async def test_nobody_is_met_where_nobody_can_be_seen(addresses: tuple[str, ...]) -> None:
    async with peers("open", "open") as (nats, (asked, asker)):
        meet = Meet(wanted_by=NOBODY, addresses=addresses)
        assert await ask(asker, asked.peer, REACH, meet, Met) == Met(is_known=False)
        assert nats.num_sent == 0


@in_virtual_time
async def test_who_is_not_connected_cannot_be_punched_to() -> None:
    async with peers("open", "cone") as (_, (helper, asker)):
        met = await ask(asker, helper.peer, REACH, Punch(wanted=NOBODY), Met)
        assert met == Met(is_known=False)


@in_virtual_time
async def test_dials_for_others_end_with_us() -> None:
    network = MemoryNetwork(line=Line(latency_s=LATENCY_S))
    async with network.transport(fake_peer_id(0)) as there, Reach(there) as asker:
        async with network.transport(fake_peer_id(1)) as here:
            async with Reach(here) as asked:
                network.hide(NOBODY)
                await asker.connect(asked.peer, asked.addresses)
                meet = Meet(wanted_by=NOBODY, addresses=("/memory/3",))
                await ask(asker, asked.peer, REACH, meet, Met)
                began = now()
            assert now() == began
            # The transport goes on answering for a moment: nothing is started any more.
            assert await ask(asker, asked.peer, REACH, meet, Met) == Met(is_known=False)


QUIC = "/udp/4001/quic-v1"


@pytest.mark.parametrize(
    "address",
    [
        f"/ip4/10.0.0.2{QUIC}",
        f"/ip4/192.168.1.7{QUIC}",
        f"/ip4/127.0.0.1{QUIC}",
        f"/ip4/100.64.0.7{QUIC}",
        f"/ip4/169.254.169.254{QUIC}",
        f"/ip4/224.0.0.1{QUIC}",
        f"/ip4/0.0.0.0{QUIC}",
        f"/ip6/::1{QUIC}",
        f"/ip6/fe80::1{QUIC}",
        f"/ip6/::ffff:10.0.0.1{QUIC}",
        f"/ip4/999.1.1.1{QUIC}",
        "/ip4/77.1.0.1/tcp/4001",
        "/ip4/77.1.0.1",
        "/ip4/77.1.0.1/udp/53/quic-v1",
        "/ip4/77.1.0.1/udp/0/quic-v1",
        "/ip4/77.1.0.1/udp/65536/quic-v1",
        "/dns4/example.org/udp/4001/quic-v1",
        f"/ip4/77.1.0.1{QUIC}/p2p-circuit",
        "",
    ],
)
def test_holes_are_public_and_over_quic(address: str) -> None:
    assert seen.punchable(NOBODY, [address]) == ()


def test_two_addresses_are_enough_and_name_the_peer() -> None:
    hosts = [f"/ip4/77.1.0.{number}{QUIC}" for number in range(1, 9)]
    claimed = [f"{hosts[0]}/p2p/{fake_peer_id(5)}", hosts[0], *hosts[1:]]
    assert seen.punchable(NOBODY, claimed) == tuple(f"{host}/p2p/{NOBODY}" for host in hosts[:2])


def lies(lie: object) -> StreamHandler:
    """Gives everybody the same answer."""

    async def reply(asker: PeerId, question: object) -> object:
        return lie

    async def handle(stream: ByteStream) -> None:
        await answer(stream, reply, 1.0)

    return handle
