"""The bytes of a stream, as they come, into whole messages; no I/O, and no copies of tensors.

Whoever receives asks for a `buffer`, fills it or a part of it, and says how much. Prefix and header
of a frame come into a small buffer of ours; its tensor bytes go straight to where the message will
have them (but for what came with the header, at most `HEAD_BYTES`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from p2pnode.errors import WireError
from p2pnode.wire.frames import END, MAX_FRAME_BYTES, PREFIX, Assembler, Prefix

HEAD_BYTES = 512
"""A step's prefix and header are about 150; a longer header gets a buffer of its own."""

END_OF_STREAM = object()
"""What an END frame is read as."""


class FrameReader:
    """Reads one stream; `filled` raises WireError on anything odd, and is of no use afterwards."""

    def __init__(self, assembler: Assembler, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._assembler = assembler
        self._max_frame_bytes = max_frame_bytes
        self.num_frames = 0
        """That have ended."""
        self._small = memoryview(bytearray(HEAD_BYTES))
        self._head = self._small
        """Where prefix and header go."""
        self._have = 0
        """Bytes in it that are not read yet."""
        self._prefix: Prefix | None = None
        """Of the frame whose tensor bytes are coming."""
        self._body = memoryview(b"")
        """Where the next of them go."""

    @property
    def is_between(self) -> bool:
        """Whether no frame has begun that has not ended."""
        return self._prefix is None and not self._have

    def buffer(self) -> memoryview:
        """Where the next bytes of the stream go; never empty."""
        return self._body if self._prefix is not None else self._head[self._have :]

    def filled(self, num_bytes: int) -> Iterator[Any]:
        """The messages that are whole now that so many bytes are in `buffer`."""
        if self._prefix is not None:
            self._body = self._body[num_bytes:]
            if len(self._body):
                return
            yield from self._close(self._prefix)
        else:
            self._have += num_bytes
        at = 0
        while self._prefix is None and self._have - at >= PREFIX.size:
            prefix = self._parse(self._head[at : at + PREFIX.size])
            end = at + PREFIX.size + prefix.header_bytes
            if end > self._have:
                self._keep(at, end - at)
                return
            at = self._open(prefix, at + PREFIX.size, end)
            if not len(self._body):
                yield from self._close(prefix)
        self._keep(at, PREFIX.size)

    def _parse(self, data: memoryview) -> Prefix:
        prefix = Prefix.parse(data)
        if prefix.num_bytes > self._max_frame_bytes:
            raise WireError(f"frame of {prefix.num_bytes} bytes, at most {self._max_frame_bytes}")
        return prefix

    def _open(self, prefix: Prefix, start: int, end: int) -> int:
        """Begin a frame whose header is there; how far the head is read then."""
        if prefix.flags & END:
            self._prefix, self._body = prefix, memoryview(b"")
            return end
        target = self._assembler.open(prefix, self._head[start:end])
        came = min(len(target), self._have - end)
        target[:came] = self._head[end : end + came]
        self._prefix, self._body = prefix, target[came:]
        return end + came

    def _close(self, prefix: Prefix) -> Iterator[Any]:
        self._prefix = None
        self.num_frames += 1
        if prefix.flags & END:
            yield END_OF_STREAM
            return
        message = self._assembler.close(prefix)
        if message is not None:
            yield message

    def _keep(self, at: int, needed: int) -> None:
        """Move what is not read yet to the front of a buffer with room for ``needed`` bytes."""
        rest = bytes(self._head[at : self._have])
        self._head = self._small
        if needed > len(self._small):
            self._head = memoryview(bytearray(needed))
        self._head[: len(rest)] = rest
        self._have = len(rest)
