"""Grants and warrants."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.errors import BadWarrant
from p2pnode.net.identity import Identity, public_key
from p2pnode.net.memory import fake_identity
from p2pnode.trust.grants import (
    GRANT_BYTES,
    MAX_WARRANT_BYTES,
    Grant,
    Kind,
    Quota,
    Right,
    Warrant,
    read_warrant,
)

FOUNDER, ADMIN, DEPUTY, INVITE, MEMBER, PEER, OTHER = map(fake_identity, range(20, 27))
SWARM = public_key(FOUNDER.peer)
FOUNDERS = Warrant(SWARM)
LATER = 2_000_000_000


def to(
    warrant: Warrant,
    issuer: Identity,
    subject: Identity,
    right: Right = Right.SERVE,
    kind: Kind = Kind.GRANT,
    **changes: object,
) -> Warrant:
    """One grant more."""
    fields = {"expires_at": LATER, **changes}
    grant = Grant(kind=kind, right=right, subject=public_key(subject.peer), **fields)  # type: ignore[arg-type]
    return warrant.and_then(grant, issuer.sign)


def full() -> Warrant:
    """From the founder over an admin's invite to a peer."""
    admin = to(FOUNDERS, FOUNDER, ADMIN, Right.ADMIN, quota=Quota(sessions=4))
    invite = to(admin, ADMIN, INVITE, expires_at=LATER - 10, quota=Quota(tokens_per_day=50))
    member = to(invite, INVITE, MEMBER, kind=Kind.CLAIM)
    return to(member, MEMBER, PEER, kind=Kind.SEAT)


def test_a_warrant_says_who_holds_it_what_it_allows_how_much_and_until_when() -> None:
    warrant = read_warrant(SWARM, full().encode())
    assert warrant.subject == public_key(PEER.peer)
    assert warrant.holder == public_key(MEMBER.peer)
    assert warrant.right is Right.SERVE
    assert warrant.quota == Quota(sessions=4, tokens_per_day=50)
    assert warrant.expires_at == LATER - 10


def test_the_founder_needs_no_grant() -> None:
    warrant = read_warrant(SWARM, b"")
    assert (warrant.subject, warrant.right) == (SWARM, Right.ADMIN)


def test_one_who_is_no_admin_grants_nothing() -> None:
    server = to(FOUNDERS, FOUNDER, ADMIN, Right.SERVE)
    with pytest.raises(BadWarrant, match="no admin"):
        to(server, ADMIN, OTHER, Right.USE)


@pytest.mark.parametrize("kind", [Kind.CLAIM, Kind.SEAT])
def test_what_is_passed_on_never_grows(kind: Kind) -> None:
    invite = to(FOUNDERS, FOUNDER, INVITE, Right.USE)
    with pytest.raises(BadWarrant, match="may not do"):
        to(invite, INVITE, MEMBER, Right.SERVE, kind)


def test_a_seat_is_passed_on_to_nobody() -> None:
    admin = to(FOUNDERS, FOUNDER, ADMIN, Right.ADMIN, Kind.SEAT)
    for kind in Kind:
        with pytest.raises(BadWarrant):
            to(admin, ADMIN, OTHER, Right.USE, kind)


def test_an_invite_is_claimed_once_in_a_warrant() -> None:
    member = to(to(FOUNDERS, FOUNDER, INVITE), INVITE, MEMBER, kind=Kind.CLAIM)
    with pytest.raises(BadWarrant, match="no invite"):
        to(member, MEMBER, OTHER, kind=Kind.CLAIM)
    with pytest.raises(BadWarrant, match="no invite"):
        to(FOUNDERS, FOUNDER, OTHER, kind=Kind.CLAIM)


def test_admins_make_admins_to_a_bounded_depth() -> None:
    warrant, issuer = FOUNDERS, FOUNDER
    for subject in (ADMIN, DEPUTY, MEMBER):
        warrant, issuer = to(warrant, issuer, subject, Right.ADMIN), subject
    with pytest.raises(BadWarrant, match="more than 3"):
        to(warrant, issuer, OTHER, Right.USE)


def test_a_warrant_of_another_swarm_is_none_here() -> None:
    with pytest.raises(BadWarrant, match="not signed"):
        read_warrant(public_key(OTHER.peer), full().encode())


def test_a_grant_taken_out_of_its_warrant_is_worth_nothing() -> None:
    data = full().encode()
    for at in range(0, len(data), GRANT_BYTES):
        shorter = data[:at] + data[at + GRANT_BYTES :]
        if at == len(data) - GRANT_BYTES:
            assert read_warrant(SWARM, shorter).subject == public_key(MEMBER.peer)
        else:
            with pytest.raises(BadWarrant):
                read_warrant(SWARM, shorter)


@given(st.integers(0, len(full().encode()) * 8 - 1))
def test_no_bit_of_a_warrant_can_be_changed(bit: int) -> None:
    data = bytearray(full().encode())
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadWarrant):
        read_warrant(SWARM, bytes(data))


@given(st.binary(max_size=MAX_WARRANT_BYTES + 2))
def test_whatever_is_read_as_a_warrant_has_that_one_form(data: bytes) -> None:
    try:
        warrant = read_warrant(SWARM, data)
    except BadWarrant:
        return
    assert warrant.encode() == data


def test_a_quota_is_bounded() -> None:
    with pytest.raises(ValueError, match="at most"):
        Quota(sessions=1 << 16)
    assert dataclasses.replace(Quota(), sessions=3).within(Quota(sessions=2)) == Quota(sessions=2)
