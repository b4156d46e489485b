"""What gossip sends over control links. Loaded with the package, so that both ends know it."""

from __future__ import annotations

from p2pnode.gossip.digest import KEY_BYTES, MAX_DIGEST_BYTES, read_place
from p2pnode.gossip.suspicion import SUSPICION_BYTES
from p2pnode.types import PeerId
from p2pnode.wire.codec import message

ENTRY_BYTES = KEY_BYTES + 6
MAX_ENTRIES = 140
MAX_DIGESTS = 48
MAX_DIGESTS_BYTES = 6 * 1024
MAX_SUSPICIONS = 8
NUM_TURNS = 3
_FIELDS_BYTES = 85
"""Of a message without what it lists: names of fields, small ones, the frame."""


@message("sync")
class Sync:
    """Any participant to another: what I hold, what you lack, and what I suspect.

    ``held`` lists (8 bytes of the peer's key, 6 of its sequence). Of what the receiver holds in a
    newer form it answers the digests; of what it holds in an older form, the sequence that it has.
    """

    turn: int
    """0 opens an exchange; each answer is one more, and the last one asks nothing."""
    is_whole: bool
    """Whether ``held`` is everything: then what it does not list, the sender lacks."""
    held: bytes
    place: bytes
    """In the answer to an opening: where the sender is now; else empty."""
    digests: tuple[bytes, ...]
    suspicions: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if self.place:
            read_place(self.place)
        if self.turn > NUM_TURNS:
            raise ValueError(f"turn {self.turn} of {NUM_TURNS}")
        if len(self.held) % ENTRY_BYTES or len(self.held) > MAX_ENTRIES * ENTRY_BYTES:
            raise ValueError(f"sync.held has {len(self.held)} bytes")
        if len(self.digests) > MAX_DIGESTS or max(map(len, self.digests), default=0) > (
            MAX_DIGEST_BYTES
        ):
            raise ValueError(f"sync.digests: at most {MAX_DIGESTS} of {MAX_DIGEST_BYTES} bytes")
        if len(self.suspicions) > MAX_SUSPICIONS or any(
            len(each) != SUSPICION_BYTES for each in self.suspicions
        ):
            raise ValueError(f"sync.suspicions: at most {MAX_SUSPICIONS}")

    @property
    def num_bytes(self) -> int:
        """About so many on the wire."""
        lists = (*self.digests, *self.suspicions)
        return _FIELDS_BYTES + len(self.held) + len(self.place) + sum(map(len, lists))


def sync_of(
    turn: int,
    *,
    held: bytes = b"",
    is_whole: bool = False,
    place: bytes = b"",
    digests: tuple[bytes, ...] = (),
    suspicions: tuple[bytes, ...] = (),
) -> Sync:
    """A message with what there is to say; the rest of it empty."""
    return Sync(
        turn=turn,
        is_whole=is_whole,
        held=held,
        place=place,
        digests=digests,
        suspicions=suspicions,
    )


@message("probe")
class Probe:
    """To a helper: I get no answer from that peer; do you?"""

    number: int
    about: PeerId


@message("probed")
class Probed:
    """The helper's answer to the probe of that number."""

    number: int
    is_alive: bool
