"""Messages cut into frames and put together again; no I/O.

Frame, little endian: ``u32 length | u32 channel | u8 flags | u16 header_bytes``, then ``length``
bytes: a msgpack header of ``header_bytes``, then tensor bytes. A frame is at most 64 KiB, so that
a small one never waits long; a message goes on in frames of the same channel flagged `MORE`.
The last frame of a stream is flagged `END`: without it, an end of the stream is a failure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from p2pnode.errors import WireError
from p2pnode.wire.codec import Pending, decode_header, encode

PREFIX = struct.Struct("<IIBH")
MAX_FRAME_BYTES = 64 * 1024
MORE = 1
END = 2

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
MAX_PARTIAL_BYTES = 64 * 1024 * 1024
"""Of all messages that one stream has begun and not finished."""
MAX_PARTIAL = 64

_END_FRAME = PREFIX.pack(0, 0, END, 0)


@dataclass(frozen=True, slots=True)
class Prefix:
    """The 11 bytes before every frame, checked."""

    num_bytes: int
    channel: int
    flags: int
    header_bytes: int

    @classmethod
    def parse(cls, data: bytes) -> Prefix:
        """Raises WireError on a frame that no peer of ours would send."""
        num_bytes, channel, flags, header_bytes = PREFIX.unpack(data)
        if num_bytes > MAX_FRAME_BYTES or header_bytes > num_bytes or flags > (MORE | END):
            raise WireError(f"frame of {num_bytes} bytes, header {header_bytes}, flags {flags}")
        return cls(num_bytes, channel, flags, header_bytes)


def frames(message: object, channel: int) -> Iterator[bytes | memoryview]:
    """The buffers of a message in the order to send them; a frame is two or three of them.

    Tensor bytes are passed on as views, never copied.
    """
    header, body = encode(message)
    room = MAX_FRAME_BYTES - len(header)
    first = body[:room]
    more = len(body) > room
    yield PREFIX.pack(len(header) + len(first), channel, MORE if more else 0, len(header)) + header
    if first:
        yield first
    for at in range(room, len(body), MAX_FRAME_BYTES):
        part = body[at : at + MAX_FRAME_BYTES]
        flags = MORE if at + MAX_FRAME_BYTES < len(body) else 0
        yield PREFIX.pack(len(part), channel, flags, 0)
        yield part


def end_frame() -> bytes:
    """What ends a stream in good order."""
    return _END_FRAME


@dataclass(slots=True)
class _Partial:
    pending: Pending
    body: bytearray
    filled: int = 0


class Assembler:
    """Puts the frames of one stream together; raises WireError on anything odd."""

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.max_message_bytes = max_message_bytes
        self._partial: dict[int, _Partial] = {}

    def add(self, prefix: Prefix, data: bytes) -> Any:
        """A whole message, or None while more of its frames are to come."""
        partial = self._partial.pop(prefix.channel, None)
        view = memoryview(data)
        if partial is None:
            pending = decode_header(view[: prefix.header_bytes])
            body = view[prefix.header_bytes :]
            if not prefix.flags & MORE:
                return pending.finish(body)
            partial = self._begin(pending)
        elif prefix.header_bytes:
            raise WireError(f"channel {prefix.channel}: a message inside another one")
        else:
            body = view
        end = partial.filled + len(body)
        if end > len(partial.body) or not len(body):
            raise WireError(f"{partial.pending.kind.name}: more bytes than its header says")
        partial.body[partial.filled : end] = body
        partial.filled = end
        if not prefix.flags & MORE:
            return partial.pending.finish(memoryview(partial.body)[:end])
        self._partial[prefix.channel] = partial
        return None

    def _begin(self, pending: Pending) -> _Partial:
        name, num_bytes = pending.kind.name, pending.num_bytes
        held = sum(len(partial.body) for partial in self._partial.values())
        if num_bytes > self.max_message_bytes or held + num_bytes > MAX_PARTIAL_BYTES:
            raise WireError(f"{name}: {num_bytes} bytes, at most {self.max_message_bytes}")
        if len(self._partial) >= MAX_PARTIAL:
            raise WireError(f"more than {MAX_PARTIAL} messages begun and not finished")
        return _Partial(pending, bytearray(num_bytes))
