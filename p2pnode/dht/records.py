"""Directory records: which key they live under, and which of them may be believed.

A record is an announcement in a signed envelope. It lives under one of `SHARDS` keys, which its
peer decides, and there under a subkey that names the peer and the model. Holders and readers apply
the same rules; in memory or on Kademlia makes no difference. The rules:

- signed by the peer that the subkey names, an Ed25519 key, at most 4 KiB;
- issued no more than `MAX_FUTURE_S` ahead of our clock, not expired, and expiring at most
  `MAX_AHEAD_S` from now (a record that never expires could never be withdrawn);
- the directory's expiry is the signed one, so no holder can prolong or shorten a record;
- never older than a record already seen of that subkey; and a newer one always expires later,
  so that nothing old is still alive when we forget what we have seen.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from libp2p.crypto.keys import KeyPair

from p2pnode.errors import BadRecord, WireError
from p2pnode.trust.envelope import seal, unseal
from p2pnode.types import Announcement, PeerId
from p2pnode.wire.records import MAX_RECORD_BYTES, decode_announcement, encode_announcement

SHARDS = 16
DOMAIN = "p2pnode/announcement/1"

TTL_S = 60.0
"""How long an announcement lives."""
MAX_AHEAD_S = 90.0
MAX_FUTURE_S = 5.0
MAX_SEEN = 4096
IDS_PER_SEEN = 4
"""As many records of one subkey can live at a time when it is renewed every third of `TTL_S`."""
ID_BYTES = 8


def shard_of(peer: PeerId) -> int:
    """Where a peer's records live: evenly spread, so that no reply grows large."""
    return hashlib.sha256(peer.encode()).digest()[0] % SHARDS


def key_of(shard: int) -> bytes:
    """The directory key of a shard."""
    return b"p2pnode/1/peers/%d" % shard


ALL_KEYS = tuple(key_of(shard) for shard in range(SHARDS))
"""Reading these is reading the whole swarm."""


def subkey_of(announcement: Announcement) -> str:
    """One record per peer and model."""
    return f"{announcement.peer}/{announcement.fingerprint[:16]}"


def id_of(value: bytes) -> bytes:
    """What names a record in lists: who wants another one of that id has to try 2^64 of them."""
    return _hash(value)[:ID_BYTES]


def seal_announcement(key_pair: KeyPair, announcement: Announcement) -> bytes:
    """The value of a record; raises BadRecord when it would be too large."""
    try:
        value = seal(key_pair, encode_announcement(announcement), DOMAIN)
    except WireError as error:
        raise BadRecord(str(error)) from error
    if len(value) > MAX_RECORD_BYTES:
        raise BadRecord(f"record of {len(value)} bytes, at most {MAX_RECORD_BYTES}")
    return value


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest record seen under one subkey."""

    announcement: Announcement
    value_hash: bytes


def check_record(
    key: bytes,
    subkey: object,
    value: bytes,
    expires_at: float,
    *,
    now: float,
    newest_seen: Seen | None = None,
) -> Announcement:
    """The announcement of a record that may be believed at ``now``; raises BadRecord."""
    is_known = newest_seen is not None and newest_seen.value_hash == _hash(value)
    if newest_seen is not None and is_known:
        announcement = newest_seen.announcement
    else:
        announcement = _open(value)
    if subkey != subkey_of(announcement) or key != key_of(shard_of(announcement.peer)):
        raise BadRecord("record of another peer or model than its subkey and key say")
    if announcement.expires_at != expires_at:
        raise BadRecord("record has another expiry than its signature covers")
    _check_times(announcement, now)
    if newest_seen is not None and not is_known:
        _check_order(announcement, newest_seen.announcement)
    return announcement


def _hash(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()


def _open(value: bytes) -> Announcement:
    signer, payload = unseal(value, DOMAIN, MAX_RECORD_BYTES)
    try:
        announcement = decode_announcement(payload)
    except WireError as error:
        raise BadRecord(str(error)) from error
    if signer != announcement.peer:
        raise BadRecord("record is signed by another peer than it describes")
    return announcement


def _check_times(announcement: Announcement, now: float) -> None:
    expires_at = announcement.expires_at
    if announcement.issued_at > now + MAX_FUTURE_S:
        raise BadRecord(f"record is from the future: {announcement.issued_at - now:.1f} s")
    if not now < expires_at <= now + MAX_AHEAD_S:
        raise BadRecord(f"record expires in {expires_at - now:.1f} s; at most {MAX_AHEAD_S:.0f}")
    if announcement.issued_at >= expires_at:
        raise BadRecord("record expires before it was issued")


def _check_order(announcement: Announcement, newest: Announcement) -> None:
    if announcement.sequence <= newest.sequence:
        raise BadRecord(f"record {announcement.sequence} is not newer than {newest.sequence}")
    if announcement.expires_at <= newest.expires_at:
        raise BadRecord("record expires no later than the one it replaces")


class RecordJudge:
    """Applies the rules and remembers, in bounded memory, what it has seen.

    A record seen before costs a hash instead of a signature check.
    """

    def __init__(self, max_seen: int = MAX_SEEN) -> None:
        self._max_seen = max_seen
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self._subkeys: OrderedDict[bytes, str] = OrderedDict()

    def known(self, record_id: bytes) -> Announcement | None:
        """What a record with that id says, or the newer one that has replaced it, if seen."""
        seen = self._seen.get(self._subkeys.get(record_id, ""))
        return None if seen is None else seen.announcement

    def believe(self, value: bytes, *, now: float) -> Announcement:
        """The announcement of a record whose key, subkey and expiry nobody has told; else as
        `check`.
        """
        announcement = _open(value)
        newest = self._newest(subkey_of(announcement), now)
        _check_times(announcement, now)
        if newest is not None and newest.value_hash != _hash(value):
            _check_order(announcement, newest.announcement)
        self._remember(announcement, value, now)
        return announcement

    def check(
        self, key: bytes, subkey: object, value: bytes, expires_at: float, *, now: float
    ) -> Announcement:
        """The announcement; raises BadRecord."""
        newest = self._newest(subkey, now) if isinstance(subkey, str) else None
        announcement = check_record(key, subkey, value, expires_at, now=now, newest_seen=newest)
        self._remember(announcement, value, now)
        return announcement

    def _newest(self, subkey: str, now: float) -> Seen | None:
        """What a record has to be newer than; nothing that our clock, before it was set back, has
        let through from the future.
        """
        seen = self._seen.get(subkey)
        if seen is None or seen.announcement.expires_at <= now:
            return None
        return None if seen.announcement.issued_at > now + MAX_FUTURE_S else seen

    def _remember(self, announcement: Announcement, value: bytes, now: float) -> None:
        subkey = subkey_of(announcement)
        self._seen[subkey] = Seen(announcement, _hash(value))
        self._seen.move_to_end(subkey)
        self._subkeys[id_of(value)] = subkey
        self._subkeys.move_to_end(id_of(value))
        if len(self._subkeys) > IDS_PER_SEEN * self._max_seen:
            self._subkeys.popitem(last=False)
        while self._seen:
            oldest = next(iter(self._seen.values())).announcement
            if len(self._seen) <= self._max_seen and oldest.expires_at > now:
                break
            self._seen.popitem(last=False)


def newest_live(announcements: Iterable[Announcement], *, now: float) -> tuple[Announcement, ...]:
    """The newest of each peer and model, without those that have left or expired; in order."""
    newest: dict[str, Announcement] = {}
    for announcement in announcements:
        subkey = subkey_of(announcement)
        held = newest.get(subkey)
        if held is None or held.sequence < announcement.sequence:
            newest[subkey] = announcement
    return tuple(
        announcement
        for _, announcement in sorted(newest.items())
        if not announcement.is_withdrawn and announcement.expires_at > now
    )
