"""The rules for directory records, at fixed instants."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.dht.records import (
    ALL_KEYS,
    DOMAIN,
    IDS_PER_SEEN,
    SHARDS,
    RecordJudge,
    check_record,
    id_of,
    key_of,
    newest_live,
    seal_announcement,
    shard_of,
    subkey_of,
)
from p2pnode.errors import BadRecord
from p2pnode.trust.envelope import peer_of, seal
from p2pnode.types import Announcement
from p2pnode.wire.records import encode_announcement
from tests.support.announcements import NOW, announcement, key_pair

KEYS = key_pair(1)
OTHER = key_pair(2)

Record = tuple[bytes, str, bytes, float]


def record(keys: Any = KEYS, **changes: Any) -> Record:
    """Key, subkey, value and expiry of an announcement, signed by its peer."""
    what = announcement(keys, **changes)
    value = seal_announcement(keys, what)
    return key_of(shard_of(what.peer)), subkey_of(what), value, what.expires_at


def test_when_our_clock_is_set_back_the_records_of_the_future_count_no_more() -> None:
    judge = RecordJudge()
    ahead = {"issued_at": NOW + 300, "expires_at": NOW + 360, "sequence": 400}
    judge.check(*record(**ahead), now=NOW + 300)
    after = record(issued_at=NOW + 8, expires_at=NOW + 68, sequence=401)
    assert judge.check(*after, now=NOW + 8).sequence == 401
    with pytest.raises(BadRecord, match="not newer"):
        judge.check(*record(issued_at=NOW, expires_at=NOW + 60, sequence=400), now=NOW + 9)


def test_a_good_record_is_believed() -> None:
    assert check_record(*record(), now=NOW) == announcement(KEYS)


def test_an_unsigned_record_is_refused() -> None:
    key, subkey, _, expires_at = record()
    value = encode_announcement(announcement(KEYS))
    with pytest.raises(BadRecord, match="envelope is not"):
        check_record(key, subkey, value, expires_at, now=NOW)


def test_a_record_signed_by_another_peer_is_refused() -> None:
    key, subkey, _, expires_at = record()
    forged = seal_announcement(OTHER, announcement(KEYS))
    with pytest.raises(BadRecord, match="signed by another peer"):
        check_record(key, subkey, forged, expires_at, now=NOW)


def test_a_record_under_the_subkey_of_another_peer_or_model_is_refused() -> None:
    key, _, value, expires_at = record()
    _, foreign, _, _ = record(OTHER)
    _, other_model, _, _ = record(fingerprint="cd" * 32)
    for subkey in (foreign, other_model, "", 7, None, b"bytes"):
        with pytest.raises(BadRecord, match="subkey"):
            check_record(key, subkey, value, expires_at, now=NOW)


def test_a_record_in_another_shard_is_refused() -> None:
    key, subkey, value, expires_at = record()
    for other in (*(k for k in ALL_KEYS if k != key), b"", b"p2pnode/1/peers/99"):
        with pytest.raises(BadRecord, match="key"):
            check_record(other, subkey, value, expires_at, now=NOW)


def test_an_expired_record_is_refused() -> None:
    what = record()
    assert check_record(*what, now=NOW + 59.9)
    with pytest.raises(BadRecord, match="expires in"):
        check_record(*what, now=NOW + 60.0)


def test_a_record_from_the_future_is_refused_beyond_five_seconds() -> None:
    what = record()
    assert check_record(*what, now=NOW - 5.0)
    with pytest.raises(BadRecord, match="future"):
        check_record(*what, now=NOW - 5.1)


@pytest.mark.parametrize("is_withdrawn", [False, True])
def test_a_record_that_expires_too_far_ahead_is_refused(is_withdrawn: bool) -> None:
    ten_years = NOW + 10 * 365 * 86400.0
    for expires_at in (NOW + 90.1, ten_years):
        what = record(expires_at=expires_at, is_withdrawn=is_withdrawn)
        with pytest.raises(BadRecord, match="expires in"):
            check_record(*what, now=NOW)
    assert check_record(*record(expires_at=NOW + 90, is_withdrawn=is_withdrawn), now=NOW)


@pytest.mark.parametrize("expires_at", [NOW + 59.0, NOW + 61.0, math.inf, math.nan])
def test_a_holder_cannot_change_the_expiry(expires_at: float) -> None:
    key, subkey, value, _ = record()
    with pytest.raises(BadRecord, match="another expiry"):
        check_record(key, subkey, value, expires_at, now=NOW)


def test_a_record_over_four_kibibytes_is_neither_made_nor_believed() -> None:
    large = announcement(KEYS, addresses=tuple("/ip4/" + "1" * 195 for _ in range(20)))
    with pytest.raises(BadRecord, match="at most 4096"):
        seal_announcement(KEYS, large)
    value = seal(KEYS, b"x" * 4096, DOMAIN)
    key, subkey, _, expires_at = record()
    with pytest.raises(BadRecord, match="at most 4096"):
        check_record(key, subkey, value, expires_at, now=NOW)


def test_a_signed_payload_that_is_no_announcement_is_refused() -> None:
    key, subkey, _, expires_at = record()
    with pytest.raises(BadRecord):
        check_record(key, subkey, seal(KEYS, b"\x80", DOMAIN), expires_at, now=NOW)


def test_an_older_record_is_refused_once_a_newer_one_was_seen() -> None:
    judge = RecordJudge()
    old, new = record(sequence=1), record(sequence=2, expires_at=NOW + 70)
    judge.check(*new, now=NOW)
    with pytest.raises(BadRecord, match="not newer"):
        judge.check(*old, now=NOW)
    assert judge.check(*new, now=NOW).sequence == 2, "the same one again is welcome"


def test_two_different_records_of_one_sequence_number_are_not_both_believed() -> None:
    judge = RecordJudge()
    judge.check(*record(), now=NOW)
    with pytest.raises(BadRecord, match="not newer"):
        judge.check(*record(tokens_per_s=1.0), now=NOW)


def test_a_newer_record_must_expire_later() -> None:
    judge = RecordJudge()
    judge.check(*record(), now=NOW)
    for expires_at in (NOW + 59, NOW + 60):
        with pytest.raises(BadRecord, match="no later"):
            judge.check(*record(sequence=2, expires_at=expires_at), now=NOW)


def test_a_tombstone_keeps_the_older_record_out() -> None:
    judge = RecordJudge()
    judge.check(*record(), now=NOW)
    tombstone = record(sequence=2, expires_at=NOW + 61, is_withdrawn=True)
    assert judge.check(*tombstone, now=NOW).is_withdrawn
    with pytest.raises(BadRecord, match="not newer"):
        judge.check(*record(), now=NOW)


def test_what_a_judge_remembers_is_bounded_and_expires() -> None:
    judge = RecordJudge(max_seen=4)
    for number in range(10, 20):
        judge.check(*record(key_pair(number)), now=NOW)
    assert len(judge._seen) == 4
    judge.check(*record(issued_at=NOW + 61, expires_at=NOW + 121), now=NOW + 61)
    assert len(judge._seen) == 1


def test_a_known_record_is_still_refused_when_its_time_is_over() -> None:
    judge = RecordJudge()
    judge.check(*record(), now=NOW)
    with pytest.raises(BadRecord, match="expires in"):
        judge.check(*record(), now=NOW + 61)


def test_peers_spread_evenly_over_the_shards() -> None:
    counts = [0] * SHARDS
    for number in range(1000):
        counts[shard_of(peer_of(key_pair(number).public_key))] += 1
    assert 30 <= min(counts) <= max(counts) <= 100


def test_the_newest_live_announcement_of_each_peer_and_model_is_kept() -> None:
    first = announcement(KEYS)
    newer = replace(first, sequence=2)
    other_model = announcement(KEYS, fingerprint="cd" * 32)
    gone = announcement(OTHER)
    tombstone = replace(gone, sequence=2, is_withdrawn=True)
    expired = announcement(key_pair(3), expires_at=NOW)
    found = newest_live([newer, first, other_model, tombstone, gone, expired], now=NOW)
    assert found == (newer, other_model)


def test_a_judge_knows_by_its_id_what_it_has_believed() -> None:
    judge, value = RecordJudge(), record()[2]
    assert judge.known(id_of(value)) is None
    assert judge.believe(value, now=NOW) == announcement(KEYS)
    assert judge.known(id_of(value)) == announcement(KEYS)
    newer = record(sequence=2, expires_at=NOW + 61)
    judge.check(*newer, now=NOW)
    assert judge.known(id_of(value)) == judge.known(id_of(newer[2]))
    assert judge.known(id_of(value)).sequence == 2, "what has replaced it"  # type: ignore[union-attr]
    with pytest.raises(BadRecord, match="not newer"):
        judge.believe(value, now=NOW)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"issued_at": NOW + 6, "expires_at": NOW + 60}, "future"),
        ({"issued_at": NOW - 60, "expires_at": NOW}, "expires in"),
        ({"expires_at": NOW + 91}, "expires in"),
    ],
)
def test_a_record_that_comes_alone_is_judged_by_the_same_rules(
    changes: dict[str, float], words: str
) -> None:
    judge = RecordJudge()
    with pytest.raises(BadRecord, match=words):
        judge.believe(record(**changes)[2], now=NOW)
    with pytest.raises(BadRecord, match="signed by another peer"):
        judge.believe(seal_announcement(OTHER, announcement(KEYS)), now=NOW)
    assert judge.known(id_of(record(**changes)[2])) is None


def test_the_ids_that_a_judge_remembers_are_bounded() -> None:
    judge = RecordJudge(max_seen=2)
    values = [record(sequence=n, expires_at=NOW + 60 + n)[2] for n in range(1, 20)]
    for value in values:
        judge.believe(value, now=NOW)
    assert judge.known(id_of(values[0])) is None
    assert judge.known(id_of(values[-1])) is not None
    assert len(judge._subkeys) == IDS_PER_SEEN * 2


GOOD = record()


@settings(max_examples=300, deadline=None)
@given(
    at=st.integers(0, len(GOOD[2]) - 1),
    flip=st.integers(1, 255),
    cut=st.integers(0, len(GOOD[2])),
    tail=st.binary(max_size=8),
)
def test_a_damaged_record_is_a_bad_record_and_nothing_else(
    at: int, flip: int, cut: int, tail: bytes
) -> None:
    key, subkey, value, expires_at = GOOD
    changed = bytearray(value)
    changed[at] ^= flip
    for data in (bytes(changed), value[:cut][:-1], value + b"\0" + tail, tail):
        with pytest.raises(BadRecord):
            check_record(key, subkey, data, expires_at, now=NOW)


@settings(max_examples=300, deadline=None)
@given(payload=st.binary(max_size=200), expires_at=st.floats(), subkey=st.text(max_size=80))
def test_what_a_stranger_signs_is_a_bad_record_and_nothing_else(
    payload: bytes, expires_at: float, subkey: str
) -> None:
    with pytest.raises(BadRecord):
        check_record(ALL_KEYS[0], subkey, seal(KEYS, payload, DOMAIN), expires_at, now=NOW)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 90)), max_size=30))
def test_a_judge_never_goes_back(arrivals: list[tuple[int, int]]) -> None:
    judge = RecordJudge()
    newest: Announcement | None = None
    for sequence, lives_s in arrivals:
        try:
            seen = judge.check(*record(sequence=sequence, expires_at=NOW + lives_s), now=NOW)
        except BadRecord:
            continue
        if newest is not None:
            assert seen.sequence >= newest.sequence
            assert seen.expires_at >= newest.expires_at
        newest = seen
