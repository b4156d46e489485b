"""Joining: whom we try, how long we wait, and what a swarm's end looks like."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pnode.dht.peers_file import FILE_NAME, GoodPeer, save_peers
from p2pnode.errors import BadRequest, DaemonDied, JoinFailed
from p2pnode.swarm.join import GRACE_S
from p2pnode.swarm.running import shown_as_running
from p2pnode.swarm.sources import by_peer
from tests.support.meeting import OWN, A, B, C, FakeMeeting, at, joiner_of, now

pytestmark = pytest.mark.virtual_time


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


def test_addresses_are_grouped_by_their_peer() -> None:
    second = f"/ip4/192.0.2.1/udp/4001/quic-v1/p2p/{A}"
    assert by_peer([at(A), at(B), second]) == {A: (at(A), second), B: (at(B),)}
