"""Envelopes: what we seal opens, nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libp2p.crypto.rsa import create_new_key_pair as create_rsa
from libp2p.crypto.secp256k1 import create_new_key_pair as create_secp256k1

from p2pnode.errors import BadRecord
from p2pnode.trust.envelope import peer_of, seal, unseal
from p2pnode.types import PeerId
from tests.support.announcements import key_pair

DOMAIN = "test/1"
SEALED = seal(key_pair(1), b"payload", DOMAIN)


def test_an_envelope_tells_who_signed_it_and_what() -> None:
    peer, payload = unseal(SEALED, DOMAIN, 4096)
    assert peer == peer_of(key_pair(1).public_key) == PeerId.parse(peer)
    assert payload == b"payload"


def test_an_envelope_of_another_domain_is_refused() -> None:
    with pytest.raises(BadRecord, match="not valid"):
        unseal(SEALED, "other/1", 4096)


def test_an_envelope_that_is_too_long_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(BadRecord, match=f"{len(SEALED)} bytes, at most 10"):
        unseal(SEALED, DOMAIN, 10)


@pytest.mark.parametrize("make", [lambda: create_rsa(1024), create_secp256k1])
def test_other_kinds_of_keys_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(BadRecord, match="Ed25519"):
        unseal(seal(make(), b"payload", DOMAIN), DOMAIN, 4096)


def test_a_field_that_the_signature_does_not_cover_cannot_be_added() -> None:
    unknown_field = b"\x7a\x01x"
    with pytest.raises(BadRecord, match="another form"):
        unseal(SEALED + unknown_field, DOMAIN, 4096)


@pytest.mark.parametrize("at", range(len(SEALED)))
def test_a_changed_byte_is_noticed(at: int) -> None:
    changed = SEALED[:at] + bytes([SEALED[at] ^ 1]) + SEALED[at + 1 :]
    with pytest.raises(BadRecord):
        unseal(changed, DOMAIN, 4096)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_other_bytes_are_a_bad_record_and_nothing_else(data: bytes) -> None:
    with pytest.raises(BadRecord):
        unseal(data, DOMAIN, 4096)
