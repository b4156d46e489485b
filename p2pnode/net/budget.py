"""How often each peer may ask for something that costs us."""

from __future__ import annotations

from collections import OrderedDict

from p2pnode.types import PeerId

MAX_PEERS = 1024


class Budget:
    """A token bucket for each peer, bounded; those not heard for the longest are forgotten."""

    def __init__(self, at_once: float, per_s: float) -> None:
        self._at_once = at_once
        self._per_s = per_s
        self._left: OrderedDict[PeerId, tuple[float, float]] = OrderedDict()

    def allows(self, peer: PeerId, now: float) -> bool:
        """Whether it may ask once more, which is counted."""
        left, at = self._left.get(peer, (self._at_once, now))
        left = min(self._at_once, left + (now - at) * self._per_s)
        is_allowed = left >= 1.0
        self._left[peer] = (left - 1.0 if is_allowed else left, now)
        self._left.move_to_end(peer)
        if len(self._left) > MAX_PEERS:
            self._left.popitem(last=False)
        return is_allowed
