"""How much we let others send us: what has come is counted, and only as much asked for; pure.

Partners choose us at random, so some seconds bring three of them and some none. What an exchange
costs its receiver is mostly what it asks for, so the receiver evens this out: whoever has had a lot
lately asks for little, and gets the rest a little later.
"""

from __future__ import annotations

from p2pnode.gossip.messages import MAX_DIGESTS, MAX_DIGESTS_BYTES

RECEIVED_PER_S = 6_200.0
"""The goal is 8 kB/s in any 10 s: the rest is room for a burst, and for what nobody asked for."""
BURST_BYTES = 7_000.0
MOST_OVERDRAWN_BYTES = 28_000.0
"""Answers that nobody asked for can come from several at once; more than this is forgiven."""
ASSUMED_DIGEST_BYTES = 160
"""Of a digest that has not come yet."""
LEAST_ASKED = 4
"""Digests asked for in any case, or whoever wastes our bytes would keep us ignorant."""


class Appetite:
    """Bytes that may still come, refilled with time. They can be overdrawn, and are paid back."""

    def __init__(self) -> None:
        self._left_bytes = BURST_BYTES
        self._at: float | None = None

    def pass_time(self, now: float) -> None:
        """Refill."""
        since_s = 0.0 if self._at is None else now - self._at
        self._left_bytes = min(BURST_BYTES, self._left_bytes + since_s * RECEIVED_PER_S)
        self._at = now

    def received(self, num_bytes: int, now: float) -> None:
        """So many have come, asked for or not."""
        self.pass_time(now)
        self._left_bytes = max(self._left_bytes - num_bytes, -MOST_OVERDRAWN_BYTES)

    @property
    def takes_all(self) -> bool:
        """Whether the largest answer is welcome."""
        return self._left_bytes >= MAX_DIGESTS_BYTES

    @property
    def num_digests(self) -> int:
        """For how many to ask now."""
        fitting = int(self._left_bytes // ASSUMED_DIGEST_BYTES)
        return min(max(fitting, LEAST_ASKED), MAX_DIGESTS)
