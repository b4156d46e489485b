"""Digests: small, exact, signed; and everything else is refused."""

from __future__ import annotations

import dataclasses
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.errors import WireError
from p2pnode.gossip.digest import (
    MAX_DIGEST_BYTES,
    is_genuine,
    key_of,
    pack_place,
    peek,
    read_digest,
    read_place,
    seal_digest,
)
from p2pnode.gossip.suspicion import (
    is_genuine_suspicion,
    read_suspicion,
    seal_suspicion,
)
from p2pnode.net.memory import fake_identity
from p2pnode.types import Coordinate, Health

ALICE, BOB = fake_identity(0), fake_identity(1)

LARGEST = Health(
    peer=ALICE.peer,
    sequence=(1 << 48) - 1,
    issued_at=1.8e9,
    is_draining=True,
    num_sessions=1 << 40,
    queue_depth=1 << 40,
    queue_s=1e300,
    kv_free_tokens=1 << 40,
    step_times=tuple((tokens, 1e5, 1e6) for tokens in (1, 16, 256, 1 << 15)),
    vram_used=1.0,
    device_load=2.0,
    errors=tuple((letter * 40, 1 << 30) for letter in "abcd"),
    coordinate=Coordinate((99.0, -99.0, 0.0), 99.0, 9.0),
)
SMALL = Health(
    peer=ALICE.peer,
    sequence=1_800_000_000_123,
    issued_at=1_800_000_000.125,
    num_sessions=3,
    queue_depth=2,
    queue_s=0.015625,
    kv_free_tokens=65_000,
    step_times=((1, 0.015625, 0.03125), (64, 0.125, 0.25)),
    vram_used=0.2,
    device_load=0.6,
    errors=(("out-of-memory", 2),),
    coordinate=Coordinate((0.0625, -0.03125, 0.0), 0.0078125, 0.25),
)


def test_what_is_read_is_what_was_said() -> None:
    digest = seal_digest(SMALL, ALICE.sign)
    assert digest.health == SMALL
    assert read_digest(digest.data) == digest
    assert is_genuine(digest)
    assert peek(digest.data) == (key_of(ALICE.peer)[:8], SMALL.sequence)


def test_times_keep_three_digits() -> None:
    said = dataclasses.replace(SMALL, queue_s=0.0123456, step_times=((1, 0.00321, 1.2345),))
    heard = seal_digest(said, ALICE.sign).health
    assert heard.queue_s == pytest.approx(said.queue_s, rel=1e-3)
    assert heard.step_times[0] == pytest.approx(said.step_times[0], rel=1e-3)


def test_the_largest_digest_fits_and_is_cut_to_what_fields_hold() -> None:
    digest = seal_digest(LARGEST, ALICE.sign)
    assert len(digest.data) <= MAX_DIGEST_BYTES
    assert digest.health.num_sessions == 0xFFFF
    assert digest.health.device_load == 1.0
    assert digest.health.coordinate == Coordinate((10.0, -10.0, 0.0), 10.0, 1.0)
    assert [len(kind) for kind, _ in digest.health.errors] == [24] * 4


def test_a_kind_of_error_that_is_no_word_is_told_as_one() -> None:
    odd = dataclasses.replace(SMALL, errors=(("Überlauf \x1b[2J", 1), ("", 1)))
    kinds = [kind for kind, _ in seal_digest(odd, ALICE.sign).health.errors]
    assert kinds == ["-berlauf---2j", "-"]


def test_a_changed_digest_is_not_genuine() -> None:
    data = seal_digest(SMALL, ALICE.sign).data
    for at in range(1, len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        try:
            digest = read_digest(changed)
        except WireError:
            continue
        assert not is_genuine(digest), f"byte {at}"


def test_nobody_can_speak_for_another() -> None:
    assert not is_genuine(seal_digest(SMALL, BOB.sign))


def test_a_signature_of_one_kind_is_none_of_another() -> None:
    said = seal_suspicion(ALICE.peer, BOB.peer, 7, ALICE.sign)
    body = said.data[:-64]
    assert is_genuine_suspicion(read_suspicion(said.data))
    bare = read_suspicion(body + ALICE.sign(body))
    other = read_suspicion(body + ALICE.sign(b"p2pnode/health/1\0" + body))
    assert not is_genuine_suspicion(bare)
    assert not is_genuine_suspicion(other)


@pytest.mark.parametrize("num_bytes", [0, 48, 321])
def test_a_digest_of_another_length_is_refused(num_bytes: int) -> None:
    with pytest.raises(WireError, match="bytes"):
        read_digest(b"\x01" * num_bytes)


def with_field(at: int, form: str, value: float) -> bytes:
    data = bytearray(seal_digest(SMALL, ALICE.sign).data)
    struct.pack_into(form, data, at, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("at", "form", "value"),
    [
        (0, ">B", 2),
        (33, ">Q", 1 << 48),
        (41, ">Q", 1 << 60),
        (49, ">B", 2),
        (54, ">e", math.nan),
        (54, ">e", -1.0),
        (54, ">e", math.inf),
        (62, ">e", math.nan),
        (62, ">e", 10.5),
        (68, ">e", -0.5),
        (70, ">e", 1.5),
        (72, ">B", 0x51),
        (72, ">B", 0x2F),
        (72, ">B", 0x20),
        (73, ">H", 0),
        (73, ">H", 64),
        (75, ">e", 1.0),
        (85, ">B", 25),
        (86, ">B", 0x1B),
    ],
)
def test_a_value_that_cannot_be_is_refused(at: int, form: str, value: float) -> None:
    with pytest.raises(WireError):
        read_digest(with_field(at, form, value))


@given(st.binary(max_size=340))
def test_random_bytes_are_refused_and_never_break_the_reader(data: bytes) -> None:
    for read in (read_digest, read_suspicion):
        with pytest.raises(WireError):
            read(b"\x02" + data)


@given(st.binary(min_size=10, max_size=10))
def test_a_place_is_within_bounds_or_refused(data: bytes) -> None:
    try:
        place = read_place(data)
    except ValueError:
        return
    assert read_place(pack_place(place)) == place
    assert max(map(abs, place.place)) <= 10.0
    assert 0 <= place.height_s <= 10.0
