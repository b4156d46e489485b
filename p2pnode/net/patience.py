"""How long a link waits in the middle of something: of a frame that comes, of bytes that go.

A peer that sends a byte now and then, or takes one, is not silent; but it holds memory of ours, and
what others wait for. Times are the loop's.
"""

from __future__ import annotations

from p2pnode.wire.reader import FrameReader

FRAME_WITHIN_S = 20.0
"""From a frame's first byte to its last: 64 KiB at 26 kbit/s."""
TAKEN_WITHIN_S = 10.0
"""Until the peer has taken the frame that was written last."""
MAX_MESSAGES = 4096
"""That may wait."""
STALLED_AFTER_S = 2.0
MAX_BYTES = 8 * 1024 * 1024
"""What may wait for a peer that has taken nothing for `STALLED_AFTER_S`.

Of one that reads, more may wait: a whole journal, which is there in any case.
"""


class Patience:
    """What one link is in the middle of, and since when."""

    def __init__(self) -> None:
        self.waiting_bytes = 0
        """Of messages that are queued."""
        self.writing_since: float | None = None
        """When the write began that the peer has not taken yet."""
        self._reading_since: float | None = None
        self._num_frames = 0

    def read(self, reader: FrameReader, now: float) -> None:
        """Bytes came."""
        if reader.is_between:
            self._reading_since = None
        elif self._reading_since is None or reader.num_frames != self._num_frames:
            self._reading_since = now
        self._num_frames = reader.num_frames

    def exhausted(self, num_messages: int, now: float) -> str:
        """Why nothing more may wait for the peer; empty when it may."""
        since = self.writing_since
        if num_messages >= MAX_MESSAGES:
            return f"{num_messages} messages wait to be read"
        is_stalled = since is not None and now - since > STALLED_AFTER_S
        if is_stalled and self.waiting_bytes > MAX_BYTES:
            return f"reads nothing while {self.waiting_bytes} bytes wait"
        return ""

    def complaint(self, now: float) -> str:
        """What the peer has not done in time; empty when all is well."""
        if self._reading_since is not None and now - self._reading_since > FRAME_WITHIN_S:
            return f"did not end a frame within {FRAME_WITHIN_S:g} s"
        if self.writing_since is not None and now - self.writing_since > TAKEN_WITHIN_S:
            return f"took nothing for {TAKEN_WITHIN_S:g} s"
        return ""
