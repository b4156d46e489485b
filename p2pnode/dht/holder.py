"""What one participant keeps for the others: checked, bounded, expiring records. Pure.

A full shard takes renewals but no newcomers: strangers with many keys can crowd out strangers,
but never make a reply so large that nobody can read it, nor push out who is already there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pnode.dht.records import RecordJudge
from p2pnode.errors import BadRecord
from p2pnode.types import Announcement

MAX_SHARD_BYTES = 768 * 1024
"""Four shards travel in one reply, which may have 4 MiB."""
MAX_RECORDS_PER_PEER = 4


@dataclass(frozen=True, slots=True)
class Held:
    """One record as it is handed on."""

    value: bytes
    expires_at: float
    announcement: Announcement = field(repr=False)


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
        if name not in held:
            _check_room(held, value, announcement)
        self._shards.setdefault(key, {})[name] = Held(value, expires_at, announcement)
        return announcement

    def shard(self, key: bytes, *, now: float) -> dict[str, Held]:
        """The live records under a key, by subkey; a copy."""
        held = self._shards.get(key, {})
        for name in [name for name, record in held.items() if record.expires_at <= now]:
            del held[name]
        if not held:
            self._shards.pop(key, None)
        return dict(held)

    def keys(self) -> tuple[bytes, ...]:
        """The keys under which something may be held."""
        return tuple(self._shards)


def _check_room(held: dict[str, Held], value: bytes, announcement: Announcement) -> None:
    if len(value) + sum(len(record.value) for record in held.values()) > MAX_SHARD_BYTES:
        raise BadRecord(f"no room: the shard holds {len(held)} records, {MAX_SHARD_BYTES} bytes")
    prefix = f"{announcement.peer}/"
    if sum(name.startswith(prefix) for name in held) >= MAX_RECORDS_PER_PEER:
        raise BadRecord(f"no room: at most {MAX_RECORDS_PER_PEER} records per peer")
