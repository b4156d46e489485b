"""Invites survive mail, and nothing else is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.errors import BadInvite
from p2pnode.trust.invite import MAX_CHARS, PREFIX, Invite, is_invite, read_invite
from tests.trust.test_grants import FOUNDER, FOUNDERS, INVITE, to

ADDRESSES = ("/ip4/203.0.113.7/tcp/4001/p2p/12D3KooW", "/ip6/2001:db8::1/udp/4001/quic-v1/p2p/12D")
SECRET = b"s" * 32


def made(secret: bytes = SECRET) -> Invite:
    return Invite("our club", to(FOUNDERS, FOUNDER, INVITE), ADDRESSES, secret)


def club(secret: bytes = SECRET) -> Invite:
    return Invite("our-club", to(FOUNDERS, FOUNDER, INVITE), ADDRESSES, secret)


@pytest.mark.parametrize("secret", [SECRET, b""])
def test_an_invite_is_one_line_that_says_it_all(secret: bytes) -> None:
    text = club(secret).text
    assert len(text.split()) == 1
    assert read_invite(text) == club(secret)


def test_line_breaks_and_blanks_that_mail_puts_in_are_no_harm() -> None:
    text = club().text
    broken = "\n> ".join(text[at : at + 60] for at in range(0, len(text), 60)).replace("> ", "  ")
    assert is_invite(f"  {broken}\r\n")
    assert read_invite(f"  {broken}\r\n") == club()


@given(st.integers(len(PREFIX), len(club().text) - 1), st.sampled_from("Az09-_"))
def test_a_wrong_letter_is_noticed_and_not_repeated(at: int, letter: str) -> None:
    text = club().text
    changed = text[:at] + letter + text[at + 1 :]
    if changed != text:
        with pytest.raises(BadInvite) as caught:
            read_invite(changed)
        assert changed[20:40] not in str(caught.value)


@pytest.mark.parametrize("end", range(0, len(club().text), 37))
def test_a_part_of_an_invite_is_none(end: int) -> None:
    with pytest.raises(BadInvite):
        read_invite(club().text[:end])


@given(st.text(max_size=200) | st.text(max_size=200).map(lambda text: PREFIX + text))
def test_anything_else_is_no_invite(text: str) -> None:
    with pytest.raises(BadInvite):
        read_invite(text)


def test_an_invite_has_a_limit() -> None:
    with pytest.raises(BadInvite, match="at most"):
        read_invite(PREFIX + "A" * MAX_CHARS)


def test_a_swarms_name_is_plain() -> None:
    with pytest.raises(BadInvite, match="name"):
        made()


def test_what_is_printed_of_an_invite_has_no_secret_in_it() -> None:
    assert "ssss" not in repr(club())
