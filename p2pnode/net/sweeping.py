"""Which links end because of what their peers do not do; pure.

A peer that vanished says no good-bye; one that crawls holds what others need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from p2pnode.errors import PeerError, PeerTimeout
from p2pnode.net.link import Link
from p2pnode.types import PeerId
from p2pnode.wire.messages import CHAIN

SILENT_AFTER_S = 4.0
"""Who has opened a chain link and says nothing at all for so long is gone: it should ping."""
UNUSED_AFTER_S = 120.0
"""An inbound control link without a word for so long is closed."""
MAX_BEGUN_BYTES = 256 * 1024 * 1024
"""Of all messages that peers have begun and not ended."""

_Links = Mapping[tuple[PeerId, str], Sequence[Link]]


def condemned(links: _Links, now: float) -> Iterator[tuple[Link, PeerError]]:
    """The links to end, and why."""
    reasons = {**_hoarder(links), **_silent(links, now)}
    for (peer, _), each in links.items():
        for link in each:
            what = reasons.get(peer) or link.patience.complaint(now)
            if what:
                yield link, PeerTimeout(peer, what)


def _silent(links: _Links, now: float) -> dict[PeerId, str]:
    heard_at: dict[PeerId, float] = {}
    guests: set[PeerId] = set()
    for (peer, traffic), each in links.items():
        newest = max(link.received_at for link in each)
        heard_at[peer] = max(newest, heard_at.get(peer, 0.0))
        if traffic == CHAIN and any(link.is_inbound for link in each):
            guests.add(peer)
    found = {}
    for peer, at in heard_at.items():
        limit_s = SILENT_AFTER_S if peer in guests else UNUSED_AFTER_S
        if now - at > limit_s:
            found[peer] = f"was silent for {limit_s:g} s"
    return found


def _hoarder(links: _Links) -> dict[PeerId, str]:
    """Who has begun the most, when all together have begun too much."""
    begun: Counter[PeerId] = Counter()
    for (peer, _), each in links.items():
        begun[peer] += sum(link.begun_bytes for link in each)
    if begun.total() <= MAX_BEGUN_BYTES:
        return {}
    ((peer, num_bytes),) = begun.most_common(1)
    return {peer: f"has begun messages of {num_bytes} bytes, more than anybody else"}
