"""The reader: messages from bytes as they come, and tensors without copies."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.errors import WireError
from p2pnode.numerics import INT8
from p2pnode.types import PeerId, Tensor
from p2pnode.wire.coding import LOSSLESS
from p2pnode.wire.frames import MAX_FRAME_BYTES, PREFIX, Assembler, FrameWriter, end_frame, frames
from p2pnode.wire.messages import Ping, Step, Warm
from p2pnode.wire.reader import END_OF_STREAM, HEAD_BYTES, FrameReader

PEER = PeerId("12D3KooW" + "A" * 44)


def step(rows: int, width: int = 64, dtype: str = "bfloat16") -> Step:
    random = np.random.default_rng(rows).normal(size=rows * width).astype("<f4")
    data = random.view("<u4") >> 16
    entry = Tensor(dtype, (rows, width), data.astype("<u2").tobytes())
    return Step(session=b"s" * 16, layer=0, epoch=0, position=rows, entry=entry)


def coded(message: object, coding: str, channel: int = 1) -> bytes:
    writer = FrameWriter(message, channel, lambda tensor: coding)
    return b"".join(itertools.chain.from_iterable(writer.turns()))


def feed(reader: FrameReader, data: bytes, sizes: Iterable[int] = ()) -> list[Any]:
    """All messages of a stream that comes in pieces of these sizes, then as the reader asks."""
    view = memoryview(data)
    messages: list[Any] = []
    pieces = iter(sizes)
    while view:
        buffer = reader.buffer()
        assert len(buffer) > 0
        size = min(len(buffer), len(view), next(pieces, len(view)))
        buffer[:size] = view[:size]
        messages += reader.filled(size)
        view = view[size:]
    return messages


def agreed() -> Assembler:
    assembler = Assembler()
    assembler.lossy = INT8
    return assembler


@given(st.lists(st.integers(1, 900), max_size=60), st.sampled_from(["", LOSSLESS, INT8]))
def test_messages_are_read_however_their_bytes_come(sizes: list[int], coding: str) -> None:
    warm = Warm(peer=PEER, addresses=("/ip4/127.0.0.1/tcp/4001",) * 40)  # a longer header
    sent = [step(1), Ping(number=7), warm, step(700), step(3), Ping(number=8)]
    data = b"".join(coded(message, coding, number) for number, message in enumerate(sent))
    read = feed(FrameReader(agreed()), data + end_frame(), sizes)
    assert read[-1] is END_OF_STREAM
    assert [type(message) for message in read[:-1]] == [type(message) for message in sent]
    if coding != INT8:
        assert read[:-1] == sent


@pytest.mark.parametrize("rows", [64, 4096])
def test_tensor_bytes_are_put_where_the_message_has_them(rows: int) -> None:
    reader, places, view = FrameReader(Assembler()), [], memoryview(b"".join(frames(step(rows), 1)))
    messages: list[Any] = []
    while view:
        buffer = reader.buffer()
        size = min(len(buffer), len(view))
        buffer[:size] = view[:size]
        places.append((np.frombuffer(buffer, np.uint8).ctypes.data, size))
        messages += reader.filled(size)
        view = view[size:]
    (message,) = messages
    tensor = np.frombuffer(message.entry.data, np.uint8)
    start, stop = tensor.ctypes.data, tensor.ctypes.data + tensor.nbytes
    direct = sum(size for place, size in places if start <= place and place + size <= stop)
    num_frames = -(-tensor.nbytes // MAX_FRAME_BYTES)
    assert direct >= tensor.nbytes - num_frames * HEAD_BYTES
    assert tensor.flags.writeable, "torch takes a view of it, not a copy"


def test_tensor_bytes_are_sent_from_where_they_are() -> None:
    message = step(4096)
    sent = [piece for piece in frames(message, 1) if isinstance(piece, memoryview)]
    assert sum(map(len, sent)) == message.entry.num_bytes
    assert all(piece.obj is message.entry.data for piece in sent)


@pytest.mark.parametrize("coding", [LOSSLESS, INT8])
@pytest.mark.parametrize("rows", [1, 256, 257, 5000])
def test_coded_tensors_arrive_with_their_shape(coding: str, rows: int) -> None:
    message = step(rows)
    (read,) = feed(FrameReader(agreed()), coded(message, coding))
    assert read.entry.shape == (rows, 64)
    again = coded(read, coding)
    assert again == coded(message, coding), "what was decoded is coded the same again"
    assert len(again) < (0.75 if coding == LOSSLESS else 0.56) * message.entry.num_bytes or rows < 9


def test_loss_that_was_not_agreed_to_is_refused() -> None:
    with pytest.raises(WireError, match="with loss"):
        feed(FrameReader(Assembler()), coded(step(4), INT8))


def _spoiled(change: Any) -> bytes:
    data = bytearray(coded(step(2000), LOSSLESS))
    change(data)
    return bytes(data)


def _shrink(size: int, data: bytearray) -> None:
    """Cut the first frame's block."""
    length, channel, flags, header_bytes = PREFIX.unpack(data[: PREFIX.size])
    stop = PREFIX.size + length
    del data[stop - size : stop]
    data[: PREFIX.size] = PREFIX.pack(length - size, channel, flags, header_bytes)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (_spoiled(partial(_shrink, 1)), "exponents"),
        (_spoiled(partial(_shrink, 18_000)), "stand for no"),
        (coded(step(4), LOSSLESS).replace(b"exponents", b"exponentz"), "coding 'exponentz'"),
        (coded(step(4), LOSSLESS).replace(b"bfloat16", b"bfloat15"), "is not what exponents is"),
        (PREFIX.pack(MAX_FRAME_BYTES + 1, 1, 0, 0), "frame of"),
    ],
)
def test_odd_frames_are_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(WireError, match=complaint):
        feed(FrameReader(agreed()), data)


def test_a_frame_longer_than_asked_for_is_refused() -> None:
    reader = FrameReader(Assembler(), max_frame_bytes=1024)
    with pytest.raises(WireError, match="at most 1024"):
        feed(reader, b"".join(frames(step(64), 1)))


def test_a_tensor_announced_longer_than_its_frame_is_refused_before_there_is_room_for_it() -> None:
    data = b"".join(frames(step(64), 1)).replace(b"\x92@@", b"\x92\xce\x00\xff\xff\xff@")
    length, channel, flags, header_bytes = PREFIX.unpack(data[: PREFIX.size])
    prefix = PREFIX.pack(length + 4, channel, flags, header_bytes + 4)
    with pytest.raises(WireError, match="beside a tensor"):
        feed(FrameReader(Assembler()), prefix + data[PREFIX.size :])
