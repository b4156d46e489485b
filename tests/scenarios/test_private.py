"""A private swarm at work: members generate, others do not; who is thrown out is out at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from p2pnode.client.events import Token
from p2pnode.errors import JoinFailed, NoChain, PeerDenied, PeerForeign
from p2pnode.lab.members import Club
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.net.gate import key_of
from p2pnode.trust.grants import Quota
from p2pnode.wire.messages import CHAIN
from tests.support.hostile import hello, hostile_peer
from tests.support.models import greedy

PROMPT = [1, 400, 261, 31, 77]

pytestmark = pytest.mark.virtual_time


async def test_members_generate_as_in_a_public_swarm(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01, club=Club()) as swarm:
        await swarm.start("0-2", "3-5", "6-8")
        async with swarm.client() as client:
            done = await client.generate(PROMPT, max_tokens=8)
    assert list(done.token_ids) == greedy(tiny, PROMPT, 8)


async def test_a_stranger_who_knows_every_address_opens_no_stream(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, club=Club()) as swarm:
        (node,) = await swarm.start("0-8")
        async with hostile_peer(swarm) as stranger:
            with pytest.raises(PeerForeign, match="private"):
                await stranger.dial(node)
            raw = await stranger.transport.open_stream(node.peer, "/p2pnode/private/chain/1")
            raw.write(hello())
            with pytest.raises(PeerForeign.__bases__[0]):
                await raw.read_exactly(1)


async def test_who_is_revoked_is_cut_off_in_the_middle_of_an_answer(
    tiny: Path, cache: Path
) -> None:
    club = Club()
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01, club=club) as swarm:
        nodes = await swarm.start("0-4", "5-8")
        made = 0
        async with swarm.client() as client:
            revoked = club.founder.revoke(key_of(swarm.client_peers[0]))
            with pytest.raises((NoChain, JoinFailed)):
                async for event in client.stream(PROMPT, max_tokens=200):
                    made += isinstance(event, Token)
                    if made == 5:
                        club.news[nodes[0].peer].add(revoked, swarm.wall_clock())
                    if made >= 5:
                        await asyncio.sleep(0.2)
        assert 5 <= made < 100
        await asyncio.sleep(5)
        heard = [club.news[node.peer].revocations for node in nodes]
        assert [len(each) for each in heard] == [1, 1]
        assert [sum(node.open_hops.values()) for node in nodes] == [0, 0]


async def test_whose_time_is_up_is_cut_off_too(tiny: Path, cache: Path) -> None:
    club = Club()
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01, club=club) as swarm:
        (node,) = await swarm.start("0-8")
        club.clients_expire_in_s = asyncio.get_running_loop().time() + 20
        async with swarm.client() as client:
            with pytest.raises((NoChain, JoinFailed)):
                async for event in client.stream(PROMPT, max_tokens=200):
                    if isinstance(event, Token):
                        await asyncio.sleep(0.5)
        assert sum(node.open_hops.values()) == 0


async def test_a_member_gets_no_more_than_its_quota_and_hears_why(tiny: Path, cache: Path) -> None:
    club = Club()
    club.quota = Quota(tokens_per_day=40)
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01, club=club) as swarm:
        await swarm.start("0-8")
        async with swarm.client() as client:
            for _ in range(3):
                await client.generate(PROMPT, max_tokens=5)
            with pytest.raises(NoChain, match="your invite allows 40 tokens per day here"):
                await client.generate(PROMPT, max_tokens=20)


async def test_a_member_that_may_only_use_is_asked_for_no_session(tiny: Path, cache: Path) -> None:
    club = Club()
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01, club=club) as swarm:
        (node,) = await swarm.start("0-8")
        async with swarm.client() as client:
            gate = client._links._transport
            await gate.serve(CHAIN, _wait)
            there = swarm.network.transports[swarm.client_peers[0]]
            async with swarm.client() as other:
                transport = other._links._transport
                await transport.connect(there.peer, there.addresses)
                with pytest.raises(PeerDenied, match="does not allow"):
                    await transport.open_stream(there.peer, CHAIN)
        assert sum(node.open_hops.values()) == 0


async def _wait(stream: object) -> None:
    await asyncio.Event().wait()
