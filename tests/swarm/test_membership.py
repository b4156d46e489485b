"""What a home keeps of a private swarm."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from p2pnode.config import Home
from p2pnode.errors import BadInvite, BadWarrant, KeyFileError
from p2pnode.net.identity import load_or_create, public_key
from p2pnode.net.memory import fake_identity, fake_peer_id
from p2pnode.swarm.membership import Membership, enter, found, memberships
from p2pnode.trust.grants import Quota, Right
from p2pnode.types import PeerId

NOW = 1_800_000_000.0
ADDRESS = ("/ip4/203.0.113.7/tcp/4001/p2p/12D3KooW",)


def text(
    of: Membership,
    right: Right = Right.SERVE,
    *,
    expires_in_s: int = 100,
    peer: PeerId | None = None,
) -> str:
    invite = of.invite_for(
        right=right,
        expires_at=int(NOW) + expires_in_s,
        quota=Quota(sessions=2),
        addresses=ADDRESS,
        peer=peer,
    )
    return invite.text


@pytest.fixture
def club(tmp_path: Path) -> Membership:
    return found(Home(tmp_path / "founder"), "club")


def test_an_invite_makes_a_home_one_member_whatever_its_peers(
    club: Membership, tmp_path: Path
) -> None:
    home, invite = Home(tmp_path / "home"), text(club)
    first, again = enter(home, invite, now=NOW), enter(home, "club", now=NOW)
    assert first.warrant == again.warrant
    seats = [first.seat(fake_peer_id(number)) for number in (1, 2)]
    assert {seat.holder for seat in seats} == {public_key(first.holder.peer)}
    assert [seat.subject for seat in seats] == [public_key(fake_peer_id(n)) for n in (1, 2)]
    assert {(seat.right, seat.quota.sessions) for seat in seats} == {(Right.SERVE, 2)}


def test_the_same_invite_in_two_homes_is_two_claims(club: Membership, tmp_path: Path) -> None:
    invite = text(club)
    one, two = (enter(Home(tmp_path / name), invite, now=NOW) for name in "ab")
    guard = one.guard(fake_identity(1), wall_clock=lambda: NOW)
    assert not guard.news.is_used(one.warrant)
    assert guard.news.is_used(two.warrant)


def test_an_invite_for_a_key_needs_no_secret(club: Membership, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    key = load_or_create(home.keys / "node.key")
    invite = text(club, peer=key.peer)
    assert enter(home, invite, now=NOW).seat(key.peer).holder == public_key(key.peer)
    with pytest.raises(BadInvite, match="does not have"):
        enter(Home(tmp_path / "other"), invite, now=NOW)


def test_an_admin_by_invite_invites_others_and_no_more_than_it_may(
    club: Membership, tmp_path: Path
) -> None:
    admin = enter(Home(tmp_path / "admin"), text(club, Right.ADMIN), now=NOW)
    member = enter(Home(tmp_path / "member"), text(admin, expires_in_s=500), now=NOW)
    assert member.warrant.expires_at == NOW + 100
    with pytest.raises(BadWarrant, match="no admin"):
        text(member, Right.USE)


def test_one_who_may_only_use_does_not_serve(club: Membership, tmp_path: Path) -> None:
    user = enter(Home(tmp_path / "home"), text(club, Right.USE), now=NOW)
    with pytest.raises(BadInvite, match="not serve it"):
        user.check_serves()


def test_an_expired_invite_is_told_at_once(club: Membership, tmp_path: Path) -> None:
    with pytest.raises(BadInvite, match="expired"):
        enter(Home(tmp_path / "home"), text(club), now=NOW + 101)


def test_files_are_the_owners_alone_and_an_invite_that_others_can_read_is_refused(
    club: Membership, tmp_path: Path
) -> None:
    file = tmp_path / "invite.txt"
    file.write_text(text(club))
    file.chmod(0o644)
    home = Home(tmp_path / "home")
    with pytest.raises(KeyFileError, match="chmod 600"):
        enter(home, str(file), now=NOW)
    file.chmod(0o600)
    member = enter(home, str(file), now=NOW)
    member.guard(fake_identity(1), wall_clock=lambda: NOW)
    for folder in (club.folder, member.folder):
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {each.stat().st_mode & 0o777 for each in folder.iterdir()} == {0o600}


def test_nothing_else_is_an_invite(tmp_path: Path) -> None:
    for given in ("no-such-swarm", str(tmp_path), "p2pnode1-AAAA", "\x1b[2J"):
        with pytest.raises(BadInvite) as caught:
            enter(Home(tmp_path / "home"), given, now=NOW)
        assert "\x1b" not in str(caught.value)


def test_a_name_is_taken_once_in_a_home(club: Membership, tmp_path: Path) -> None:
    home = Home(tmp_path / "founder")
    with pytest.raises(BadInvite, match="already"):
        found(home, "club")
    found(home, "other")
    assert {each.name for each in memberships(home)} == {"club", "other"}


def test_no_secret_is_logged_or_shown(
    club: Membership, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    invite = text(club)
    member = enter(Home(tmp_path / "home"), invite, now=NOW)
    guard = member.guard(fake_identity(1), wall_clock=lambda: NOW)
    guard.greet(public_key(fake_peer_id(2)), "/p2pnode/chain/1", bytes(16))
    shown = caplog.text + repr(member) + repr(guard) + repr(member.invite)
    assert invite not in shown
    assert repr(member.invite.secret)[2:20] not in shown
