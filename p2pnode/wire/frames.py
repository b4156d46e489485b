"""Messages cut into frames and put together again; no I/O.

Frame, little endian: ``u32 length | u32 channel | u8 flags | u16 header_bytes``, then ``length``
bytes: a msgpack header of ``header_bytes``, then tensor bytes. A frame is at most 64 KiB, so that
a small one never waits long; a message goes on in frames of the same channel flagged `MORE`.
Where the header names a coding, the tensor bytes of each frame are one block of it (`wire.coding`).
The last frame of a stream is flagged `END`: without it, an end of the stream is a failure.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from p2pnode.errors import WireError
from p2pnode.types import Tensor
from p2pnode.wire.codec import Pending, decode_header, encode, tensor_of
from p2pnode.wire.coding import CODINGS, LOSSY, Buffers

PREFIX = struct.Struct("<IIBH")
MAX_FRAME_BYTES = 64 * 1024
MORE = 1
END = 2

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
MAX_PARTIAL_BYTES = 64 * 1024 * 1024
"""Of all messages that one stream has begun and not finished."""
MAX_PARTIAL = 64

_END_FRAME = PREFIX.pack(0, 0, END, 0)
_EMPTY = memoryview(bytearray())


@dataclass(frozen=True, slots=True)
class Prefix:
    """The 11 bytes before every frame, checked."""

    num_bytes: int
    channel: int
    flags: int
    header_bytes: int

    @classmethod
    def parse(cls, data: bytes | memoryview) -> Prefix:
        """Raises WireError on a frame that no peer of ours would send."""
        num_bytes, channel, flags, header_bytes = PREFIX.unpack(data)
        if num_bytes > MAX_FRAME_BYTES or header_bytes > num_bytes or flags > (MORE | END):
            raise WireError(f"frame of {num_bytes} bytes, header {header_bytes}, flags {flags}")
        return cls(num_bytes, channel, flags, header_bytes)


class FrameWriter:
    """A message cut into frames, each made when its turn comes.

    choose: the name of the coding for a tensor; empty: none
    Raises WireError when the header is too long, ValueError when the coding is not for the tensor.
    """

    def __init__(
        self, message: object, channel: int, choose: Callable[[Tensor], str] | None = None
    ) -> None:
        tensor = tensor_of(message)
        self._coding = choose(tensor) if choose is not None and tensor is not None else ""
        self._tensor = tensor
        self._channel = channel
        self._header, self._body = encode(message, self._coding)
        room = MAX_FRAME_BYTES - len(self._header)
        self._room = self._block_bytes() if self._coding else room
        """Plain bytes of the first frame."""

    @property
    def num_bytes(self) -> int:
        """Of the message, before any coding."""
        return len(self._header) + len(self._body)

    @property
    def is_single(self) -> bool:
        """Whether it is one frame."""
        return len(self._body) <= self._room

    def turns(self) -> Iterator[Buffers]:
        """The buffers of each frame; tensor bytes that are not coded are views, never copies."""
        header, room, at = self._header, self._room, 0
        more = True
        while more:
            part = self._body[at : at + room]
            more = at + len(part) < len(self._body)
            buffers = self._coded(part) if self._coding else (part,) if part else ()
            size = len(header) + sum(map(len, buffers))
            flags = MORE if more else 0
            yield PREFIX.pack(size, self._channel, flags, len(header)) + header, *buffers
            header, at = b"", at + len(part)
            if not self._coding:
                room = MAX_FRAME_BYTES

    def _block_bytes(self) -> int:
        dtype, width = self._described()
        return CODINGS[self._coding].block_bytes(dtype, width)

    def _coded(self, part: memoryview) -> Buffers:
        return CODINGS[self._coding].encode(part, *self._described())

    def _described(self) -> tuple[str, int]:
        """Dtype and row width of the tensor, which is there where a coding is."""
        return (self._tensor.dtype, self._tensor.shape[-1]) if self._tensor else ("", 0)


def frames(message: object, channel: int) -> Iterator[bytes | memoryview]:
    """The buffers of a message in the order to send them; a frame is one or two of them."""
    for buffers in FrameWriter(message, channel).turns():
        yield from buffers


def end_frame() -> bytes:
    """What ends a stream in good order."""
    return _END_FRAME


@dataclass(slots=True)
class _Partial:
    """A message of which frames are to come."""

    pending: Pending
    body: bytearray
    filled: int = 0
    block: bytearray | None = None
    """Coded bytes of the frame that is being read."""

    def target(self, num_bytes: int) -> memoryview:
        """Where so many bytes of a frame go; raises WireError when they are too many."""
        name = self.pending.kind.name
        if self.pending.coding:
            self.block = bytearray(num_bytes)
            return memoryview(self.block)
        end = self.filled + num_bytes
        if end > len(self.body):
            raise WireError(f"{name}: more bytes than its header says")
        return memoryview(self.body)[self.filled : end]

    def take(self, num_bytes: int) -> None:
        """So many bytes of a frame are there; raises WireError when they are no block."""
        if self.block is None:
            self.filled += num_bytes
            return
        size = min(self.pending.block_bytes, len(self.body) - self.filled)
        plain = memoryview(self.body)[self.filled : self.filled + size]
        self.pending.decode_block(memoryview(self.block), plain)
        self.filled += size
        self.block = None


class Assembler:
    """Puts the frames of one stream together; raises WireError on anything odd.

    Of each frame: `open` says where its tensor bytes go, `close` is told that they are there.
    """

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.max_message_bytes = max_message_bytes
        self.lossy = ""
        """The one lossy coding that tensors may come in; they may always come without."""
        self._partial: dict[int, _Partial] = {}

    @property
    def begun_bytes(self) -> int:
        """Room made for messages that have begun and not ended."""
        return sum(len(partial.body) for partial in self._partial.values())

    def add(self, prefix: Prefix, data: bytes | memoryview) -> Any:
        """A whole message, or None while more of its frames are to come."""
        view = memoryview(data)
        target = self.open(prefix, view[: prefix.header_bytes])
        target[:] = view[prefix.header_bytes :]
        return self.close(prefix)

    def open(self, prefix: Prefix, header: bytes | memoryview) -> memoryview:
        """Where the tensor bytes of a frame go, after its header is checked; may be empty."""
        partial = self._partial.get(prefix.channel)
        num_bytes = prefix.num_bytes - prefix.header_bytes
        if partial is None:
            partial = self._begin(decode_header(header), prefix, num_bytes)
            self._partial[prefix.channel] = partial
        elif prefix.header_bytes:
            raise WireError(f"channel {prefix.channel}: a message inside another one")
        if not num_bytes and (prefix.flags & MORE or partial.filled):
            raise WireError(f"{partial.pending.kind.name}: a frame without bytes")
        return partial.target(num_bytes) if num_bytes else _EMPTY

    def close(self, prefix: Prefix) -> Any:
        """The message whose last frame this is, now that its bytes are there; else None."""
        partial = self._partial[prefix.channel]
        partial.take(prefix.num_bytes - prefix.header_bytes)
        if prefix.flags & MORE:
            return None
        del self._partial[prefix.channel]
        body = memoryview(partial.body)
        return partial.pending.finish(body[: partial.filled] if partial.filled else b"")

    def _begin(self, pending: Pending, prefix: Prefix, first_bytes: int) -> _Partial:
        """Make room for a message; all that speaks against it is found before that."""
        name, num_bytes = pending.kind.name, pending.num_bytes
        if pending.coding:
            self._check_coding(pending)
        if prefix.flags & MORE:
            begun = self.begun_bytes
            if num_bytes > self.max_message_bytes or begun + num_bytes > MAX_PARTIAL_BYTES:
                raise WireError(f"{name}: {num_bytes} bytes, at most {self.max_message_bytes}")
            if len(self._partial) >= MAX_PARTIAL:
                raise WireError(f"more than {MAX_PARTIAL} messages begun and not finished")
        elif num_bytes > pending.block_bytes if pending.coding else num_bytes != first_bytes:
            raise WireError(f"{name}: {first_bytes} bytes beside a tensor of {num_bytes}")
        return _Partial(pending, bytearray(num_bytes))

    def _check_coding(self, pending: Pending) -> None:
        name = pending.kind.name
        if pending.coding in LOSSY and pending.coding != self.lossy:
            raise WireError(f"{name}: its tensor is coded with loss, and we did not agree to that")
        if not pending.block_bytes:
            raise WireError(f"{name}: its tensor is not what {pending.coding} is for")
