"""What ended sessions have computed, kept a while for the next ones of the same client.

A chat sends its whole history again with each question, and many requests begin with the same
instructions. What a hop has computed for such a beginning (keys, values, and the output rows that
failover needs) is copied into the new session, which begins behind it. Only a client's own
sessions give it anything, and only as much as it has named (`wire.pages`).

Nothing is promised: what is kept gives way to sessions, the oldest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from p2pnode.serving.journal import Journal
from p2pnode.serving.session import HopSession
from p2pnode.types import LayerRange, PeerId
from p2pnode.wire.pages import NAME_BYTES, PAGE_TOKENS, tokens_named, tokens_shared

if TYPE_CHECKING:
    from p2pnode.model.cache import KVCache

MAX_KEPT = 64
KEPT_FOR_S = 600.0


@dataclass(slots=True, eq=False)
class Kept:
    """What one hop of an ended session has computed."""

    client: PeerId
    layers: LayerRange
    names: bytes
    cache: KVCache
    journal: Journal
    num_bytes: int
    """What admission counted for it."""
    used_at: float


class Prefixes:
    """Of one block, the longest unused first."""

    def __init__(self) -> None:
        self._kept: list[Kept] = []

    @property
    def num_bytes(self) -> int:
        """What all that is kept takes at most."""
        return sum(each.num_bytes for each in self._kept)

    def keep(self, session: HopSession, names: bytes, *, num_bytes: int, now: float) -> None:
        """A session ends, whose first tokens have these names; it must not run any more.

        num_bytes: what admission counted for it
        """
        num_pages = min(session.position, tokens_named(names)) // PAGE_TOKENS
        if not num_pages:
            return
        kept = Kept(
            client=session.client.peer,
            layers=session.layers,
            names=names[: num_pages * NAME_BYTES],
            cache=session.cache,
            journal=session.journal,
            num_bytes=num_bytes,
            used_at=now,
        )
        kept.journal.truncate(num_pages * PAGE_TOKENS)
        self._kept = [each for each in self._kept if not _is_part_of(each, kept)][1 - MAX_KEPT :]
        self._kept.append(kept)

    def find(
        self, client: PeerId, layers: LayerRange, names: bytes, *, now: float
    ) -> tuple[Kept, int] | None:
        """What has most of the tokens with these names, and how many of them; None: nothing has."""
        own = (each for each in self._kept if each.client == client and each.layers == layers)
        shared = [(tokens_shared(each.names, names), each) for each in own]
        num_tokens, best = max(shared, key=lambda pair: pair[0], default=(0, None))
        if best is None or not num_tokens:
            return None
        best.used_at = now
        self._kept.sort(key=lambda each: each.used_at)
        return best, num_tokens

    def expire(self, now: float) -> None:
        """Forget what nobody has wanted for long."""
        self._kept = [each for each in self._kept if now - each.used_at <= KEPT_FOR_S]

    def shrink(self, max_bytes: int) -> None:
        """Forget the longest unused, until no more bytes than that are taken."""
        excess = self.num_bytes - max_bytes
        while excess > 0 and self._kept:
            excess -= self._kept.pop(0).num_bytes


def _is_part_of(old: Kept, new: Kept) -> bool:
    """Whether a newer one holds all that an older one does."""
    is_same = (old.client, old.layers) == (new.client, new.layers)
    return is_same and new.names.startswith(old.names)
