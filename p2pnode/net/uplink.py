"""How fast a link sends: as announced, and as measured while it makes us wait; pure."""

from __future__ import annotations

CODING_BYTES_PER_S = 100e6
"""Plain bytes coded and decoded per second on a slow or busy core; 150 MB/s is usual."""
WINDOW_S = 0.2
WEIGHT = 0.3
"""Of a new measurement."""


class Uplink:
    """What a link takes per second.

    A write does not wait while the daemon has room, so only what passes between two waits says how
    fast the network is: the daemon was full before and after it.
    """

    def __init__(self) -> None:
        self.announced_bytes_per_s = 0.0
        """Of this machine, by its owner's word; 0 when not known."""
        self.measured_bytes_per_s = 0.0
        """Of this link; 0 until it has made us wait."""
        self.coding_bytes_per_s = CODING_BYTES_PER_S
        self._since: float | None = None
        self._num_bytes = 0

    @property
    def bytes_per_s(self) -> float:
        """The slower of both, as far as they are known; 0 when not."""
        known = (self.announced_bytes_per_s, self.measured_bytes_per_s)
        return min((rate for rate in known if rate > 0), default=0.0)

    def sent(self, num_bytes: int, began: float, ended: float) -> None:
        """So many bytes were handed over at ``began``, and at ``ended`` there was room again."""
        self._num_bytes += num_bytes
        if ended <= began:
            return
        if self._since is None or began - self._since > 5 * WINDOW_S:
            self._since, self._num_bytes = ended, 0
            return
        elapsed_s = ended - self._since
        if elapsed_s >= WINDOW_S:
            rate, old = self._num_bytes / elapsed_s, self.measured_bytes_per_s
            self.measured_bytes_per_s = rate if not old else old + WEIGHT * (rate - old)
            self._since, self._num_bytes = ended, 0
