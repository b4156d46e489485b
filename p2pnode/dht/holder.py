"""What one participant keeps for the others: checked, bounded, expiring records. Pure.

A full shard takes renewals but no newcomers: strangers with many keys can crowd out strangers,
but never make a shard so large that nobody can read it, nor push out who is already there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from p2pnode.dht.records import RecordJudge, id_of
from p2pnode.errors import BadRecord
from p2pnode.types import Announcement

MAX_SHARD_BYTES = 768 * 1024
"""Of records; some thousands."""
MAX_RECORDS_PER_PEER = 4


@dataclass(frozen=True, slots=True)
class Held:
    """One record as it is handed on."""

    value: bytes
    expires_at: float
    announcement: Announcement = field(repr=False)
    record_id: bytes
    replaces: bytes
    """The id of the record before it, of the same subkey; empty for the first."""


class Holder:
    """The records of all shards that this participant holds."""

    def __init__(self, judge: RecordJudge) -> None:
        self._judge = judge
        self._shards: dict[bytes, dict[str, Held]] = {}

    def put(
        self, key: bytes, subkey: object, value: bytes, expires_at: float, *, now: float
    ) -> Announcement:
        """Keep a record; keeping the same one again is harmless. Raises BadRecord."""
        announcement = self._judge.check(key, subkey, value, expires_at, now=now)
        held = self.shard(key, now=now)
        name = str(subkey)
        before = held.get(name)
        if before is None:
            _check_room(held, value, announcement)
        elif before.value == value:
            return announcement
        replaces = b"" if before is None else before.record_id
        new = Held(value, expires_at, announcement, id_of(value), replaces)
        self._shards.setdefault(key, {})[name] = new
        return announcement

    def shard(self, key: bytes, *, now: float) -> dict[str, Held]:
        """The live records under a key, by subkey; a copy."""
        held = self._shards.get(key, {})
        for name in [name for name, record in held.items() if record.expires_at <= now]:
            del held[name]
        if not held:
            self._shards.pop(key, None)
        return dict(held)

    def records(self, ids: Sequence[bytes], *, now: float) -> list[bytes]:
        """The records of these ids, or those that have just replaced them; empty for the others."""
        everything = [held for key in self.keys() for held in self.shard(key, now=now).values()]
        by_id = {held.replaces: held.value for held in everything}
        by_id |= {held.record_id: held.value for held in everything}
        return [by_id.get(each, b"") if each else b"" for each in ids]

    def keys(self) -> tuple[bytes, ...]:
        """The keys under which something may be held."""
        return tuple(self._shards)


def _check_room(held: dict[str, Held], value: bytes, announcement: Announcement) -> None:
    if len(value) + sum(len(record.value) for record in held.values()) > MAX_SHARD_BYTES:
        raise BadRecord(f"no room: the shard holds {len(held)} records, {MAX_SHARD_BYTES} bytes")
    prefix = f"{announcement.peer}/"
    if sum(name.startswith(prefix) for name in held) >= MAX_RECORDS_PER_PEER:
        raise BadRecord(f"no room: at most {MAX_RECORDS_PER_PEER} records per peer")
