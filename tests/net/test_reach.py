"""Peers that cannot be dialled: they learn it, and they are reached all the same."""

from __future__ import annotations

import asyncio

import pytest

from p2pnode.errors import PeerError, PeerLost
from p2pnode.net.memory import Line, MemoryNetwork, fake_peer_id
from p2pnode.net.reach import CHECK_EVERY_S, HELP_WITHIN_S, PATIENCE_S, RETRY_S, Reach
from p2pnode.net.reach_helpers import PUNCH_AGAIN_S, PUNCH_WITHIN_S, UNKNOWN_FOR_S
from p2pnode.net.transport import ByteStream
from tests.net.reachable import ASK_S, DIAL_S, LATENCY_S, ROUND_TRIP_S, now, peers

pytestmark = pytest.mark.virtual_time


async def test_who_can_be_dialled_announces_that_and_who_cannot_announces_nothing() -> None:
    async with peers(False, True, False) as (_, (one, behind, other)):
        before = behind.addresses
        await behind.connect(one.peer, one.addresses)
        await behind.connect(other.peer, other.addresses)
        began = now()
        await one.check()
        await behind.check()
        assert (one.is_dialable, behind.is_dialable, other.is_dialable) == (True, False, None)
        assert before != ()
        assert behind.addresses == ()
        assert one.addresses != ()
        assert now() - began <= 2 * (ASK_S + ROUND_TRIP_S) + 0.001


async def test_alone_we_do_not_know_and_announce_what_we_have() -> None:
    async with peers(False) as (_, (alone,)):
        await alone.check()
        assert alone.is_dialable is None
        assert alone.addresses != ()


async def test_it_is_found_out_without_being_asked_for_and_told() -> None:
    network = MemoryNetwork(line=Line(latency_s=LATENCY_S))
    changed = asyncio.Event()
    async with (
        network.transport(fake_peer_id(0)) as there,
        network.transport(fake_peer_id(1)) as here,
        Reach(there) as helper,
        Reach(here, on_change=changed.set) as ours,
    ):
        network.hide(ours.peer)
        await ours.connect(helper.peer, helper.addresses)
        async with asyncio.timeout(2 * RETRY_S):
            await changed.wait()
        assert ours.addresses == ()


async def test_that_we_cannot_be_dialled_any_more_is_believed_the_second_time() -> None:
    async with peers(False, False) as (network, (helper, ours)):
        await ours.connect(helper.peer, helper.addresses)
        await ours.check()
        assert ours.is_dialable
        network.hide(ours.peer)
        await ours.check()
        assert ours.is_dialable
        await ours.check()
        assert ours.is_dialable is False
        assert ours.addresses == ()


async def test_a_change_is_noticed_within_the_interval() -> None:
    async with peers(False, False) as (network, (helper, ours)):
        await ours.connect(helper.peer, helper.addresses)
        await asyncio.sleep(2 * RETRY_S)
        assert ours.is_dialable
        network.hide(ours.peer)
        await asyncio.sleep(1.5 * CHECK_EVERY_S)
        assert ours.is_dialable is False


async def test_what_the_operator_announces_is_kept() -> None:
    network = MemoryNetwork()
    async with (
        network.transport(fake_peer_id(0)) as there,
        network.transport(fake_peer_id(1)) as here,
        Reach(there) as helper,
        Reach(here, kept=here.addresses) as ours,
    ):
        network.hide(ours.peer)
        await ours.connect(helper.peer, helper.addresses)
        await ours.check()
        assert ours.is_dialable is False
        assert ours.addresses == here.addresses


async def test_a_client_announces_nothing() -> None:
    network = MemoryNetwork()
    async with network.transport(fake_peer_id(0)) as ground, Reach(ground, is_client=True) as ours:
        assert ours.addresses == ()


# --- the stream that the other side can open


async def test_who_announces_no_address_is_asked_to_dial_us() -> None:
    async with peers(False, True, False) as (_, (helper, behind, asker)):
        await behind.connect(helper.peer, helper.addresses)
        await asker.connect(helper.peer, helper.addresses)
        began = now()
        await asker.connect(behind.peer, ())
        # The question to the helper, its question to the other, and that one's dial.
        assert now() - began <= 2 * ASK_S + DIAL_S + 0.001
        heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def listen(stream: ByteStream) -> None:
            heard.set_result(await stream.read_exactly(2))

        await behind.serve("/test/1", listen)
        stream = await asker.open_stream(behind.peer, "/test/1")
        stream.write(b"hi")
        assert await heard == b"hi"
        stream.close()


async def test_a_dial_that_gets_no_answer_is_helped_before_it_gives_up() -> None:
    async with peers(False, True, False) as (_, (helper, behind, asker)):
        wrong = behind.addresses
        await behind.connect(helper.peer, helper.addresses)
        await asker.connect(helper.peer, helper.addresses)
        began = now()
        await asker.connect(behind.peer, wrong)
        assert now() - began <= PATIENCE_S + 2 * ASK_S + DIAL_S + 0.001


async def test_two_who_cannot_be_dialled_know_it_soon() -> None:
    async with peers(False, True, True) as (_, (helper, one, other)):
        for each in (one, other):
            await each.connect(helper.peer, helper.addresses)
            await each.check()
        began = now()
        with pytest.raises(PeerLost, match="neither can we; no hole could be punched"):
            await one.connect(other.peer, ())
        assert now() - began <= 2 * ASK_S + PUNCH_WITHIN_S + 0.021
        began = now()
        with pytest.raises(PeerLost, match="cannot be dialled, and neither can we"):
            await one.connect(other.peer, ())
        assert now() == began
        await asyncio.sleep(PUNCH_AGAIN_S)
        with pytest.raises(PeerLost, match="no hole could be punched"):
            await one.connect(other.peer, ())


async def test_before_anybody_has_tried_it_takes_no_longer_than_the_deadline() -> None:
    async with peers(False, True, True) as (_, (helper, one, other)):
        for each in (one, other):
            await each.connect(helper.peer, helper.addresses)
        began = now()
        with pytest.raises(PeerError):
            await one.connect(other.peer, ())
        assert now() - began <= HELP_WITHIN_S


async def test_without_anybody_in_common_it_is_unreachable() -> None:
    async with peers(False, True, False) as (_, (helper, behind, asker)):
        await asker.connect(helper.peer, helper.addresses)
        with pytest.raises(PeerLost, match="nobody we know"):
            await asker.connect(behind.peer, ())


async def test_a_helper_that_is_silent_does_not_keep_the_others_from_helping() -> None:
    async with peers(False, True, False, False, False) as (network, everybody):
        helper, behind, asker, *silent = everybody
        await behind.connect(helper.peer, helper.addresses)
        for each in (helper, *silent):
            await asker.connect(each.peer, each.addresses)
        for each in silent:
            network.freeze(each.peer)
        began = now()
        await asker.connect(behind.peer, ())
        assert now() - began <= 2 * ASK_S + DIAL_S + 0.001


async def test_the_dead_are_not_waited_for() -> None:
    async with peers(False, False, False) as (network, (helper, dead, asker)):
        where = dead.addresses
        for each in (dead, asker):
            await each.connect(helper.peer, helper.addresses)
        network.kill(dead.peer)
        began = now()
        with pytest.raises(PeerLost, match="refused"):
            await asker.connect(dead.peer, where)
        assert now() - began <= ROUND_TRIP_S + ASK_S + 0.001


async def test_whom_nobody_knows_is_asked_for_ever_more_rarely() -> None:
    async with peers(False, True, False) as (_, (helper, behind, asker)):
        await asker.connect(helper.peer, helper.addresses)
        for pause_s in (UNKNOWN_FOR_S, 2 * UNKNOWN_FOR_S, 4 * UNKNOWN_FOR_S):
            for waited_s, takes_s in ((0.0, ASK_S), (pause_s - 2 * ASK_S, 0.0)):
                await asyncio.sleep(waited_s)
                began = now()
                with pytest.raises(PeerLost, match="nobody we know"):
                    await asker.connect(behind.peer, ())
                assert now() - began == pytest.approx(takes_s, abs=0.001)
            await asyncio.sleep(2 * ASK_S)


async def test_who_can_be_dialled_it_says_and_does_not_answer_is_sought_through_few() -> None:
    """More than are asked at once would take another round."""
    async with peers(*(False,) * 8) as (network, (dead, asker, *helpers)):
        where = dead.addresses
        for helper in helpers:
            await asker.connect(helper.peer, helper.addresses)
        network.kill(dead.peer)
        began = now()
        with pytest.raises(PeerLost):
            await asker.connect(dead.peer, where)
        assert now() - began <= ROUND_TRIP_S + ASK_S + 0.001


async def test_whom_nobody_knows_is_not_asked_for_again_so_soon() -> None:
    async with peers(False, True, False) as (_, (helper, behind, asker)):
        await asker.connect(helper.peer, helper.addresses)
        for takes_s in (ASK_S, 0.0):
            began = now()
            with pytest.raises(PeerLost, match="nobody we know"):
                await asker.connect(behind.peer, ())
            assert now() - began == pytest.approx(takes_s, abs=0.001)
        await behind.connect(helper.peer, helper.addresses)
        await asyncio.sleep(UNKNOWN_FOR_S)
        await asker.connect(behind.peer, ())
