"""What strangers may ask of us: to be dialled where they are seen, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from p2pnode.errors import PeerError, PeerLost, WireError
from p2pnode.net.questions import ask
from p2pnode.net.reach_messages import REACH, CallBack, CalledBack, Came, Come, Fetch
from p2pnode.net.reach_server import ASKS_AT_ONCE
from tests.net.reachable import NOBODY, peers

pytestmark = pytest.mark.virtual_time


async def test_only_the_port_of_a_claim_counts() -> None:
    async with peers(False, False, False) as (_, (helper, asker, victim)):
        await asker.connect(helper.peer, helper.addresses)
        claim = CallBack(addresses=victim.addresses)
        answer = await ask(asker, helper.peer, REACH, claim, CalledBack)
        # It was tried where we are, not where we said.
        assert answer.reached == (asker.addresses[0].partition("/p2p/")[0],)


async def test_a_peer_is_sent_only_to_where_the_asker_is_seen() -> None:
    async with peers(False, False, False, False) as (network, (helper, asker, wanted, victim)):
        for each in (asker, wanted):
            await each.connect(helper.peer, helper.addresses)
        fetch = Fetch(wanted=wanted.peer, addresses=victim.addresses, is_hidden=False)
        came = await ask(asker, helper.peer, REACH, fetch, Came)
        assert came.is_connected
        assert network.are_connected(wanted.peer, asker.peer)
        assert not network.are_connected(wanted.peer, victim.peer)


async def test_who_is_not_connected_cannot_be_fetched() -> None:
    async with peers(False, False) as (_, (helper, asker)):
        await asker.connect(helper.peer, helper.addresses)
        fetch = Fetch(wanted=NOBODY, addresses=asker.addresses, is_hidden=False)
        came = await ask(asker, helper.peer, REACH, fetch, Came)
        assert came == Came(is_connected=False, is_known=False)


async def test_an_address_of_another_peer_is_not_dialled() -> None:
    async with peers(False, False, False) as (network, (asked, asker, victim)):
        await asker.connect(asked.peer, asked.addresses)
        come = Come(wanted_by=NOBODY, addresses=victim.addresses)
        came = await ask(asker, asked.peer, REACH, come, Came)
        assert not came.is_connected
        assert not network.are_connected(asked.peer, victim.peer)


async def test_who_asks_too_often_gets_no_answer() -> None:
    async with peers(False, False) as (_, (helper, asker)):
        await asker.connect(helper.peer, helper.addresses)
        fetch = Fetch(wanted=NOBODY, addresses=asker.addresses, is_hidden=False)
        # The line takes time, in which more is allowed: at once they are asked.
        asking = [ask(asker, helper.peer, REACH, fetch, Came) for _ in range(30)]
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert sum(isinstance(each, Came) for each in answers) == ASKS_AT_ONCE
        assert sum(isinstance(each, PeerLost) for each in answers) == 30 - ASKS_AT_ONCE


@pytest.mark.parametrize("data", [b"\xff\xff", b"\x00\x00", b"\x00\x01\xc1", b"\x00\x02\x81\xa4"])
async def test_nonsense_ends_the_stream(data: bytes) -> None:
    async with peers(False, False) as (_, (helper, asker)):
        await asker.connect(helper.peer, helper.addresses)
        stream = await asker.open_stream(helper.peer, REACH)
        stream.write(data)
        with pytest.raises(PeerLost):
            await stream.read_exactly(1)
        stream.close()


async def test_an_answer_of_another_kind_is_refused() -> None:
    async with peers(False, False) as (_, (helper, asker)):
        await asker.connect(helper.peer, helper.addresses)
        with pytest.raises(PeerError) as caught:
            await ask(asker, helper.peer, REACH, CallBack(addresses=()), Came)
        assert isinstance(caught.value.__cause__, WireError)
