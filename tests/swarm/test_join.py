"""Joining: whom we try, how long we wait, and what a swarm's end looks like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from p2pnode.dht.peers_file import FILE_NAME, GoodPeer, load_peers, save_peers
from p2pnode.errors import BadRequest, DaemonDied, JoinFailed, PeerLost, PeerTimeout
from p2pnode.net.memory import fake_peer_id
from p2pnode.swarm.join import (
    GRACE_S,
    MAX_PEER_RETRY_S,
    MAX_RETRY_S,
    RETRY_S,
    Joiner,
    JoinSources,
    by_peer,
)
from p2pnode.swarm.running import shown_as_running
from p2pnode.types import PeerId

pytestmark = pytest.mark.virtual_time

OWN, A, B, C, D = (fake_peer_id(number) for number in range(5))


def at(peer: PeerId) -> str:
    return f"/ip4/192.0.2.1/tcp/4001/p2p/{peer}"


def now() -> float:
    return asyncio.get_running_loop().time()


class FakeMeeting:
    """A world of nodes that live, are dead, freeze or have a wrong clock; islands of friends."""

    def __init__(self, *living: PeerId) -> None:
        self.living = set(living)
        self.daemon_is_dead = False
        self.frozen: set[PeerId] = set()
        self.skewed: set[PeerId] = set()
        self.friends: dict[PeerId, tuple[PeerId, ...]] = {}
        self.tried: list[PeerId] = []
        self._met: list[PeerId] = []

    @property
    def peers(self) -> tuple[PeerId, ...]:
        return tuple(peer for peer in self._met if peer in self.living)

    def addresses_of(self, peer: PeerId) -> tuple[str, ...]:
        return (at(peer),)

    async def meet(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        self.tried.append(peer)
        if self.daemon_is_dead:
            raise DaemonDied("p2pd is gone")
        if peer in self.frozen:
            await asyncio.sleep(3.0)
            raise PeerTimeout(peer, "no answer in 3 s")
        if peer not in self.living or at(peer) not in addresses:
            raise PeerLost(peer, "connection refused")
        await asyncio.sleep(0.02)
        if peer in self.skewed:
            raise JoinFailed(f"this machine's clock is 10.0 s ahead of that of peer {peer.short}")
        self._met.append(peer)

    async def explore(self) -> None:
        for peer in tuple(self._met):
            new = [each for each in self.friends.get(peer, ()) if each not in self._met]
            self._met += new


def joiner_of(
    meeting: FakeMeeting, home: Path, *explicit: str, public: tuple[str, ...] = ()
) -> Joiner:
    sources = JoinSources(home=home, explicit=explicit, public=public)
    return Joiner(meeting, sources, own=OWN, wall_clock=now)


@asynccontextmanager
async def running(joiner: Joiner) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(joiner.run(), name="joiner")
        try:
            yield
        finally:
            task.cancel()


async def test_one_living_bootstrap_peer_is_enough(tmp_path: Path) -> None:
    meeting = FakeMeeting(A)
    assert await joiner_of(meeting, tmp_path, at(A)).join(may_found=True)
    assert meeting.peers == (A,)


async def test_a_dead_bootstrap_peer_beside_a_living_one_costs_nothing(tmp_path: Path) -> None:
    await joiner_of(FakeMeeting(A), tmp_path, at(B), at(A), at(C)).join(may_found=True)
    assert now() == pytest.approx(0.02)


async def test_a_frozen_bootstrap_peer_beside_a_living_one_costs_a_moment(tmp_path: Path) -> None:
    meeting = FakeMeeting(A)
    meeting.frozen.add(B)
    await joiner_of(meeting, tmp_path, at(B), at(A)).join(may_found=True)
    assert now() <= 0.02 + GRACE_S + 0.01


async def test_frozen_bootstrap_peers_alone_cost_three_seconds(tmp_path: Path) -> None:
    meeting = FakeMeeting()
    meeting.frozen |= {A, B, C}
    with pytest.raises(JoinFailed, match="no answer in 3 s"):
        await joiner_of(meeting, tmp_path, at(A), at(B), at(C)).join(may_found=True)
    assert now() == pytest.approx(3.0)


async def test_an_explicit_join_that_fails_never_founds_a_swarm(tmp_path: Path) -> None:
    save_peers(tmp_path / FILE_NAME, [GoodPeer(B, (at(B),), 1.0)])
    meeting = FakeMeeting(B, C)
    with pytest.raises(JoinFailed, match=f"--join answered: peer {A.short}: connection refused"):
        await joiner_of(meeting, tmp_path, at(A), public=(at(C),)).join(may_found=True)
    assert meeting.tried == [A], "nothing else is tried"


async def test_an_explicit_join_of_only_ourselves_fails(tmp_path: Path) -> None:
    with pytest.raises(JoinFailed, match="this node itself"):
        await joiner_of(FakeMeeting(), tmp_path, at(OWN)).join(may_found=True)


async def test_an_address_without_a_peer_is_the_callers_mistake(tmp_path: Path) -> None:
    for wrong in ("/ip4/192.0.2.1/tcp/4001", "192.0.2.1:4001", "", f"/ip4/1/p2p/{A[:-1]}"):
        with pytest.raises(BadRequest, match="/p2p/PEER"):
            await joiner_of(FakeMeeting(), tmp_path, wrong).join(may_found=True)


async def test_the_first_node_anywhere_founds_a_swarm(tmp_path: Path) -> None:
    assert not await joiner_of(FakeMeeting(), tmp_path).join(may_found=True)


async def test_a_client_never_founds_a_swarm(tmp_path: Path) -> None:
    with pytest.raises(JoinFailed, match="--join ADDRESS"):
        await joiner_of(FakeMeeting(), tmp_path, public=(at(A),)).join(may_found=False)


@pytest.mark.parametrize("source", ["running", "last good", "public"])
async def test_without_a_join_every_source_is_tried(tmp_path: Path, source: str) -> None:
    meeting = FakeMeeting({"running": A, "last good": B, "public": C}[source])
    save_peers(tmp_path / FILE_NAME, [GoodPeer(B, (at(B),), 1.0)])
    with shown_as_running(tmp_path / "run", A, [at(A)]):
        joiner = joiner_of(meeting, tmp_path, public=(at(C),))
        assert await joiner.join(may_found=False)
    assert set(meeting.tried) == {A, B, C}


async def test_we_do_not_try_ourselves(tmp_path: Path) -> None:
    meeting = FakeMeeting()
    with shown_as_running(tmp_path / "run", OWN, [at(OWN)]):
        assert not await joiner_of(meeting, tmp_path, public=(at(OWN),)).join(may_found=True)
    assert meeting.tried == []


async def test_a_bad_line_in_a_list_costs_itself_only(tmp_path: Path) -> None:
    meeting = FakeMeeting(A)
    assert await joiner_of(meeting, tmp_path, public=("nonsense", at(A))).join(may_found=True)


async def test_a_wrong_clock_fails_the_join_and_says_by_how_much(tmp_path: Path) -> None:
    meeting = FakeMeeting(A)
    meeting.skewed.add(A)
    for explicit in ((at(A),), ()):
        with pytest.raises(JoinFailed, match="s ahead of that of peer"):
            joiner = joiner_of(meeting, tmp_path, *explicit, public=(at(A),))
            await joiner.join(may_found=True)


async def test_one_peer_with_a_wrong_clock_beside_a_good_one_is_no_obstacle(
    tmp_path: Path,
) -> None:
    meeting = FakeMeeting(A, B)
    meeting.skewed.add(A)
    assert await joiner_of(meeting, tmp_path, at(A), at(B)).join(may_found=True)


async def test_a_dead_daemon_is_not_taken_for_an_empty_world(tmp_path: Path) -> None:
    meeting = FakeMeeting(A)
    meeting.daemon_is_dead = True
    with pytest.raises(DaemonDied):
        await joiner_of(meeting, tmp_path, public=(at(A),)).join(may_found=True)


async def test_islands_that_meet_merge_and_say_so(tmp_path: Path) -> None:
    meeting = FakeMeeting()
    merged_at: list[float] = []
    sources = JoinSources(home=tmp_path, public=(at(A),))
    joiner = Joiner(meeting, sources, own=OWN, wall_clock=now, met=lambda: merged_at.append(now()))
    assert not await joiner.join(may_found=True)
    async with running(joiner):
        await asyncio.sleep(60)
        meeting.living |= {A, B}
        meeting.friends[A] = (B,)
        await asyncio.sleep(3)
        assert set(meeting.peers) == {A, B}
    assert len(merged_at) == 1


async def test_a_second_bootstrap_peer_is_met_when_it_comes_up_later(tmp_path: Path) -> None:
    meeting = FakeMeeting(A)
    joiner = joiner_of(meeting, tmp_path, at(A), at(B))
    await joiner.join(may_found=True)
    async with running(joiner):
        await asyncio.sleep(100)
        meeting.living.add(B)
        await asyncio.sleep(31)
        assert set(meeting.peers) == {A, B}


async def test_a_node_that_lost_everybody_finds_those_again_whom_it_knew(tmp_path: Path) -> None:
    meeting = FakeMeeting(A, B)
    meeting.friends[A] = (B,)
    joiner = joiner_of(meeting, tmp_path, at(A))
    await joiner.join(may_found=True)
    async with running(joiner):
        await asyncio.sleep(10)
        meeting.living.clear()
        meeting._met.clear()
        await asyncio.sleep(60)
        meeting.living.add(B)
        await asyncio.sleep(3)
        assert meeting.peers == (B,), "though it was never told of B by its user"


async def test_a_node_that_was_away_for_a_moment_is_back_at_once(tmp_path: Path) -> None:
    """Everybody but one has dropped it: that one must not keep it from looking for others."""
    meeting = FakeMeeting(A, B)
    joiner = joiner_of(meeting, tmp_path, at(A), at(B))
    await joiner.join(may_found=True)
    async with running(joiner):
        await asyncio.sleep(200)  # by now it looks for others seldom
        meeting._met.remove(B)
        await asyncio.sleep(5)
        assert B in meeting.peers


async def test_a_restarted_node_rejoins_through_the_last_good_peers(tmp_path: Path) -> None:
    meeting = FakeMeeting(A, B)
    meeting.friends[A] = (B,)
    await joiner_of(meeting, tmp_path, public=(at(A),)).join(may_found=False)
    assert {good.peer for good in load_peers(tmp_path / FILE_NAME)} == {A, B}
    without_bootstrap = FakeMeeting(B)
    assert await joiner_of(without_bootstrap, tmp_path, public=(at(A),)).join(may_found=False)


async def test_the_good_peers_are_saved_when_we_leave(tmp_path: Path) -> None:
    meeting = FakeMeeting(A, B)
    joiner = joiner_of(meeting, tmp_path, at(A))
    await joiner.join(may_found=True)
    async with running(joiner):
        await asyncio.sleep(1)
        meeting._met.append(B)
        await asyncio.sleep(35)
    assert {good.peer for good in load_peers(tmp_path / FILE_NAME)} == {A, B}


def test_addresses_are_grouped_by_their_peer() -> None:
    second = f"/ip4/192.0.2.1/udp/4001/quic-v1/p2p/{A}"
    assert by_peer([at(A), at(B), second]) == {A: (at(A), second), B: (at(B),)}


async def test_the_dead_are_tried_ever_more_rarely_while_others_live(tmp_path: Path) -> None:
    meeting = FakeMeeting(A, B)
    joiner = joiner_of(meeting, tmp_path, at(A), at(B))
    assert await joiner.join(may_found=False)
    async with running(joiner):
        await asyncio.sleep(3)
        meeting.living.remove(B)
        meeting.tried.clear()
        await asyncio.sleep(600)
        assert meeting.tried.count(B) <= 12
        meeting.living.add(B)
        meeting._met.remove(B)
        await asyncio.sleep(MAX_PEER_RETRY_S + MAX_RETRY_S)
        assert set(meeting.peers) == {A, B}


async def test_who_has_lost_everybody_tries_all_at_once(tmp_path: Path) -> None:
    meeting = FakeMeeting(A, B)
    joiner = joiner_of(meeting, tmp_path, at(A), at(B))
    assert await joiner.join(may_found=False)
    async with running(joiner):
        await asyncio.sleep(3)
        meeting.living.clear()
        await asyncio.sleep(600)
        meeting.living |= {B}
        meeting._met.clear()
        await asyncio.sleep(2 * RETRY_S)
        assert meeting.peers == (B,)
