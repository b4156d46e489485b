"""The newest digest of each peer, and what to compare with somebody else's; pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from p2pnode.gossip.digest import KEY_BYTES, Digest
from p2pnode.gossip.messages import (
    ENTRY_BYTES,
    MAX_DIGESTS,
    MAX_DIGESTS_BYTES,
    MAX_ENTRIES,
)

NUM_HOT = 60
NUM_SLICE = 20
"""In a large swarm an exchange compares the latest news, and a slice of all the rest."""
NUM_OFFERED = 40


class Book:
    """Digests by short key, in the order in which they came."""

    def __init__(self) -> None:
        self._digests: dict[bytes, Digest] = {}
        self._slice: Iterator[bytes] = iter(())

    def __len__(self) -> int:
        return len(self._digests)

    def __iter__(self) -> Iterator[Digest]:
        return iter(list(self._digests.values()))

    def get(self, key: bytes) -> Digest | None:
        """The newest digest of that peer."""
        return self._digests.get(key)

    def put(self, digest: Digest) -> None:
        """Take a digest, which is now the hottest news."""
        self._digests.pop(digest.key, None)
        self._digests[digest.key] = digest

    def remove(self, key: bytes) -> None:
        """Forget a peer."""
        self._digests.pop(key, None)

    def summary(self) -> tuple[bytes, bool]:
        """Entries for `Sync.held`, and whether they are all."""
        if len(self._digests) <= NUM_HOT + NUM_SLICE:
            return b"".join(map(_entry, self._digests.values())), True
        chosen = dict.fromkeys(islice(reversed(self._digests), NUM_HOT))
        while len(chosen) < NUM_HOT + NUM_SLICE:
            key = next(self._slice, None)
            if key is None:
                self._slice = iter(list(self._digests))
            elif key in self._digests:
                chosen[key] = None
        return b"".join(_entry(self._digests[key]) for key in chosen), False

    def compare(
        self, held: bytes, *, is_whole: bool, offers: bool, most_asked: int = MAX_DIGESTS
    ) -> tuple[list[Digest], list[bytes]]:
        """What the other side lacks, newest first, and entries of what we lack or offer it.

        Of what we lack, the first ``most_asked``.
        """
        theirs = dict(_entries(held))
        newer: list[Digest] = []
        entries: list[bytes] = []
        for key, sequence in theirs.items():
            ours = self._digests.get(key)
            has = ours.health.sequence if ours else 0
            if ours and has > sequence:
                newer.append(ours)
            elif has < sequence and len(entries) < most_asked:
                entries.append(key + has.to_bytes(ENTRY_BYTES - KEY_BYTES, "big"))
        if is_whole:
            unlisted = (d for key, d in self._digests.items() if key not in theirs)
            newer += islice(unlisted, MAX_DIGESTS)
        elif offers:
            hot = islice(reversed(self._digests.items()), NUM_OFFERED)
            entries += [_entry(digest) for key, digest in hot if key not in theirs]
        return newer, entries[:MAX_ENTRIES]


def fitting(digests: list[Digest]) -> tuple[bytes, ...]:
    """The bytes of as many as a message may hold."""
    chosen: list[bytes] = []
    room = MAX_DIGESTS_BYTES
    for digest in digests[:MAX_DIGESTS]:
        room -= len(digest.data)
        if room < 0:
            break
        chosen.append(digest.data)
    return tuple(chosen)


def _entry(digest: Digest) -> bytes:
    return digest.key + digest.health.sequence.to_bytes(ENTRY_BYTES - KEY_BYTES, "big")


def _entries(held: bytes) -> Iterator[tuple[bytes, int]]:
    for at in range(0, len(held), ENTRY_BYTES):
        key = held[at : at + KEY_BYTES]
        yield key, int.from_bytes(held[at + KEY_BYTES : at + ENTRY_BYTES], "big")
