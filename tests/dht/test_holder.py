"""What one participant keeps for the others, and how it hands it on."""

from __future__ import annotations

from typing import Any

import pytest

from p2pnode.dht.holder import MAX_RECORDS_PER_PEER, MAX_SHARD_BYTES, Holder
from p2pnode.dht.records import RecordJudge, id_of, key_of
from p2pnode.errors import BadRecord
from tests.dht.test_records import Record, record
from tests.support.announcements import FINGERPRINT, NOW, key_pair


def test_a_full_shard_takes_renewals_but_no_newcomers() -> None:
    holder = Holder(RecordJudge())
    padding = tuple("/ip4/" + "1" * 180 for _ in range(16))
    full = False
    number, newest = 0, record()
    held: list[tuple[Any, Record]] = []
    while not full:
        number += 1
        keys = key_pair(number)
        newest = record(keys, addresses=padding)
        if newest[0] != key_of(0):
            continue
        try:
            holder.put(*newest, now=NOW)
        except BadRecord as error:
            assert "no room" in str(error)
            full = True
        else:
            held.append((keys, newest))
    kept = holder.shard(key_of(0), now=NOW)
    assert sum(len(each.value) for each in kept.values()) <= MAX_SHARD_BYTES
    assert len(kept) == len(held) > 150
    renewal = record(held[0][0], addresses=padding, sequence=2, expires_at=NOW + 61)
    assert holder.put(*renewal, now=NOW).sequence == 2
    later = record(key_pair(number), issued_at=NOW + 61, expires_at=NOW + 121)
    assert holder.put(*later, now=NOW + 61), "room comes back as records expire"


def test_a_peer_may_hold_a_few_records_only() -> None:
    holder = Holder(RecordJudge())
    for number in range(MAX_RECORDS_PER_PEER):
        holder.put(*record(fingerprint=f"{number:064x}"[::-1]), now=NOW)
    with pytest.raises(BadRecord, match="records per peer"):
        holder.put(*record(fingerprint=FINGERPRINT), now=NOW)


def test_records_are_given_by_their_ids() -> None:
    holder, (one, other) = Holder(RecordJudge()), (record(), record(key_pair(2)))
    for each in (one, other):
        holder.put(*each, now=NOW)
    (held,) = holder.shard(one[0], now=NOW).values()
    assert held.record_id == id_of(one[2])
    ids = [id_of(other[2]), b"", b"x" * 8, id_of(one[2])]
    assert holder.records(ids, now=NOW) == [other[2], b"", b"", one[2]]
    assert holder.records(ids, now=NOW + 60) == [b""] * 4, "they have expired"


def test_who_asks_for_a_record_that_was_just_renewed_gets_the_new_one() -> None:
    holder, old = Holder(RecordJudge()), record()
    new = record(sequence=2, expires_at=NOW + 61)
    holder.put(*old, now=NOW)
    for _ in range(2):  # the second time, nothing changes
        holder.put(*new, now=NOW)
        assert holder.records([id_of(old[2]), id_of(new[2])], now=NOW) == [new[2], new[2]]
