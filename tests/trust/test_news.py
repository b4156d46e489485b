"""Claims and revocations."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.errors import BadWarrant
from p2pnode.net.identity import Identity, public_key
from p2pnode.net.memory import fake_identity
from p2pnode.trust.grants import Grant, Kind, Right, Warrant
from p2pnode.trust.news import MAX_ITEM_BYTES, MAX_PER_BRANCH, News, read_item, revoke
from tests.trust.test_grants import (
    ADMIN,
    FOUNDER,
    FOUNDERS,
    INVITE,
    LATER,
    MEMBER,
    OTHER,
    SWARM,
    to,
)

NOW = 1_900_000_000.0


def admins() -> Warrant:
    return to(FOUNDERS, FOUNDER, ADMIN, Right.ADMIN)


def claim(warrant: Warrant, invite: Identity, member: Identity) -> Warrant:
    return to(warrant, invite, member, kind=Kind.CLAIM)


def revoked(warrant: Warrant, issuer: Identity, target: Identity, until: int = LATER) -> bytes:
    return revoke(warrant, public_key(target.peer), until, 1, issuer.sign).item


def test_an_admin_revokes_what_comes_from_it_and_nothing_else() -> None:
    news, ours = News(SWARM), to(admins(), ADMIN, MEMBER)
    theirs = to(FOUNDERS, FOUNDER, MEMBER)
    assert news.add(revoked(admins(), ADMIN, MEMBER), NOW)
    assert news.is_revoked(ours)
    assert not news.is_revoked(theirs)
    assert not news.is_revoked(admins())


def test_the_founder_revokes_an_admin_with_all_who_came_by_it() -> None:
    news = News(SWARM)
    news.add(revoked(FOUNDERS, FOUNDER, ADMIN), NOW)
    assert news.is_revoked(to(admins(), ADMIN, MEMBER))


def test_nobody_revokes_those_above_and_nobody_the_founder() -> None:
    news = News(SWARM)
    news.add(revoked(admins(), ADMIN, FOUNDER), NOW)
    assert not news.is_revoked(FOUNDERS)
    assert not news.is_revoked(to(FOUNDERS, FOUNDER, MEMBER))


def test_one_who_is_no_admin_revokes_nobody() -> None:
    server = to(FOUNDERS, FOUNDER, OTHER)
    with pytest.raises(BadWarrant, match="no admin"):
        News(SWARM).add(revoked(server, OTHER, MEMBER), NOW)


def test_a_revocation_that_another_signed_is_none() -> None:
    with pytest.raises(BadWarrant, match="not signed"):
        News(SWARM).add(revoked(admins(), OTHER, MEMBER), NOW)


def test_in_whatever_order_news_comes_the_same_follows() -> None:
    items = [
        revoked(FOUNDERS, FOUNDER, ADMIN),
        revoked(admins(), ADMIN, MEMBER),
        revoked(FOUNDERS, FOUNDER, OTHER),
    ]
    found = set()
    for order in itertools.permutations(items):
        news = News(SWARM)
        for item in order:
            news.add(item, NOW)
        found.add(news.digest)
    assert len(found) == 1  # what a revoked admin has said is forgotten


def test_of_two_who_use_one_invite_the_first_that_is_heard_of_is_in() -> None:
    news, invite = News(SWARM), to(FOUNDERS, FOUNDER, INVITE)
    first, second = claim(invite, INVITE, MEMBER), claim(invite, INVITE, OTHER)
    assert news.claim(first, NOW)
    assert not news.claim(second, NOW)
    assert not news.is_used(first)
    assert news.is_used(second)


def test_a_claim_is_passed_on_as_it_was_heard() -> None:
    ours, theirs = News(SWARM), News(SWARM)
    ours.claim(claim(to(FOUNDERS, FOUNDER, INVITE), INVITE, MEMBER), NOW)
    assert [theirs.add(item, NOW) for item in ours.since(0)] == [True]
    assert ours.digest == theirs.digest


def test_what_has_expired_is_forgotten_and_not_taken_in_again() -> None:
    news, item = News(SWARM), revoked(FOUNDERS, FOUNDER, MEMBER, until=int(NOW) + 5)
    log_id = news.log_id
    assert news.add(item, NOW)
    news.forget_expired(NOW + 6)
    assert (len(news), news.since(0)) == (0, ())
    assert news.log_id != log_id
    assert not news.add(item, NOW + 6)


def test_one_admin_cannot_fill_the_book_nor_keep_the_founder_from_revoking_it() -> None:
    news, warrant = News(SWARM), admins()
    for number in range(MAX_PER_BRANCH):
        news.add(revoke(warrant, number.to_bytes(32, "big"), LATER, number, ADMIN.sign).item, NOW)
    with pytest.raises(BadWarrant, match="no room"):
        news.add(revoked(warrant, ADMIN, MEMBER), NOW)
    assert news.add(revoked(FOUNDERS, FOUNDER, ADMIN), NOW)
    assert len(news) == 1


def test_a_revocation_counts_up() -> None:
    news = News(SWARM)
    assert news.next_sequence(SWARM) == 1
    news.add(revoked(FOUNDERS, FOUNDER, MEMBER), NOW)
    assert news.next_sequence(SWARM) == 2


@given(st.binary(max_size=MAX_ITEM_BYTES + 1) | st.binary(max_size=300).map(lambda b: b"r" + b))
def test_anything_else_is_no_news(data: bytes) -> None:
    with pytest.raises(BadWarrant):
        read_item(SWARM, data)


def test_a_claim_that_is_only_a_grant_is_none() -> None:
    grant = Grant(right=Right.USE, subject=public_key(fake_identity(77).peer), expires_at=LATER)
    with pytest.raises(BadWarrant, match="does not end"):
        read_item(SWARM, b"c" + FOUNDERS.and_then(grant, FOUNDER.sign).encode())
