"""Staying in a swarm: islands merge, and whom we have lost we find again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from p2pnode.dht.peers_file import FILE_NAME, load_peers
from p2pnode.swarm.join import (
    MAX_PEER_RETRY_S,
    MAX_RETRY_S,
    RETRY_S,
    Joiner,
)
from p2pnode.swarm.sources import JoinSources
from tests.support.meeting import OWN, A, B, FakeMeeting, at, joiner_of, now, running

pytestmark = pytest.mark.virtual_time


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
