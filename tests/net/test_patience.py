"""What a peer has time for, at fixed instants."""

from __future__ import annotations

from p2pnode.net.patience import (
    FRAME_WITHIN_S,
    MAX_BYTES,
    MAX_MESSAGES,
    STALLED_AFTER_S,
    TAKEN_WITHIN_S,
    Patience,
)
from p2pnode.wire.frames import Assembler, frames
from p2pnode.wire.messages import Ping
from p2pnode.wire.reader import FrameReader

PING = b"".join(bytes(part) for part in frames(Ping(number=1), 1))


class Reading:
    """A reader, and the patience of its link."""

    def __init__(self) -> None:
        self.patience = Patience()
        self._reader = FrameReader(Assembler())

    def comes(self, data: bytes, now: float) -> None:
        self._reader.buffer()[: len(data)] = data
        list(self._reader.filled(len(data)))
        self.patience.read(self._reader, now)


def test_between_frames_a_peer_may_be_silent() -> None:
    reading = Reading()
    reading.comes(PING, 0.0)
    assert reading.patience.complaint(1e6) == ""


def test_a_frame_that_comes_byte_by_byte_is_not_waited_for() -> None:
    reading = Reading()
    for second in range(10):
        reading.comes(PING[second : second + 1], 2.0 * second)
    assert reading.patience.complaint(FRAME_WITHIN_S) == ""
    assert "did not end a frame" in reading.patience.complaint(FRAME_WITHIN_S + 0.1)


def test_each_frame_has_time_of_its_own() -> None:
    reading = Reading()
    rest = PING[:5]
    for at in range(0, 100, 10):
        reading.comes(PING[len(rest) :] + rest if at else rest, float(at))
    assert reading.patience.complaint(90.0 + FRAME_WITHIN_S) == ""
    assert reading.patience.complaint(90.1 + FRAME_WITHIN_S) != ""


def test_who_takes_nothing_has_little_time_when_much_waits() -> None:
    patience = Patience()
    patience.waiting_bytes = MAX_BYTES + 1
    assert patience.exhausted(1, 0.0) == ""
    patience.writing_since = 0.0
    assert patience.exhausted(1, STALLED_AFTER_S) == ""
    assert "reads nothing" in patience.exhausted(1, STALLED_AFTER_S + 0.1)
    assert patience.complaint(TAKEN_WITHIN_S) == ""
    assert "took nothing" in patience.complaint(TAKEN_WITHIN_S + 0.1)
    patience.writing_since = None
    assert patience.complaint(1e6) == ""


def test_so_many_messages_wait_and_no_more() -> None:
    assert Patience().exhausted(MAX_MESSAGES - 1, 0.0) == ""
    assert "messages wait" in Patience().exhausted(MAX_MESSAGES, 0.0)
