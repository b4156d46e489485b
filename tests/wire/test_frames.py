"""Frames: cut, mixed and put together again, with limits before allocation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.errors import WireError
from p2pnode.types import Tensor
from p2pnode.wire.codec import encode
from p2pnode.wire.frames import (
    END,
    MAX_FRAME_BYTES,
    MAX_PARTIAL,
    MORE,
    PREFIX,
    Assembler,
    Prefix,
    end_frame,
    frames,
)
from p2pnode.wire.messages import Ping, Step


def step(tokens: int, position: int = 0) -> Step:
    """A step of ``tokens`` rows of 8 KiB whose bytes tell where they belong."""
    data = b"".join(bytes([(position + row) % 251]) * 8192 for row in range(tokens))
    entry = Tensor("float32", (tokens, 2048), data)
    return Step(session=b"s" * 16, layer=0, epoch=0, position=position, entry=entry)


def read(assembler: Assembler, data: bytes) -> list[Any]:
    """All messages of a stream's bytes."""
    messages, at = [], 0
    while at < len(data):
        prefix = Prefix.parse(data[at : at + PREFIX.size])
        at += PREFIX.size
        message = assembler.add(prefix, data[at : at + prefix.num_bytes])
        at += prefix.num_bytes
        if message is not None:
            messages.append(message)
    return messages


def cut(pieces: Iterable[bytes | memoryview]) -> list[bytes]:
    """The frames of a message, each as one piece of bytes."""
    data, out = b"".join(pieces), []
    while data:
        size = PREFIX.size + Prefix.parse(data[: PREFIX.size]).num_bytes
        out.append(data[:size])
        data = data[size:]
    return out


@pytest.mark.parametrize("tokens", [1, 7, 8, 9, 100])
def test_a_message_survives_being_cut_into_frames(tokens: int) -> None:
    message = step(tokens)
    parts = cut(frames(message, 5))
    assert all(len(part) <= MAX_FRAME_BYTES + PREFIX.size for part in parts)
    assert read(Assembler(), b"".join(parts)) == [message]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.randoms())
def test_messages_whose_frames_take_turns_arrive_whole(sizes: list[int], random: Any) -> None:
    messages = [step(size, position) for position, size in enumerate(sizes)]
    waiting = [cut(frames(message, channel)) for channel, message in enumerate(messages)]
    data = b""
    while any(waiting):
        turn = random.choice([parts for parts in waiting if parts])
        data += turn.pop(0)
    arrived = read(Assembler(), data)
    assert sorted(arrived, key=lambda message: message.position) == messages


def test_a_message_above_the_limit_is_refused_before_its_bytes_come() -> None:
    header = encode(dataclasses.replace(step(1)))[0]
    huge = header.replace(b"\xcd\x08\x00", b"\xce\x00\xff\xff\xff")
    prefix = Prefix(len(huge), 1, MORE, len(huge))
    with pytest.raises(WireError, match="at most"):
        Assembler().add(prefix, huge)


def test_too_many_unfinished_messages_are_refused() -> None:
    assembler = Assembler()
    first = cut(frames(step(9), 0))[0]
    prefix = Prefix.parse(first[: PREFIX.size])
    for channel in range(MAX_PARTIAL):
        assembler.add(dataclasses.replace(prefix, channel=channel), first[PREFIX.size :])
    with pytest.raises(WireError, match="not finished"):
        assembler.add(dataclasses.replace(prefix, channel=MAX_PARTIAL), first[PREFIX.size :])


def test_a_message_inside_another_one_of_its_channel_is_refused() -> None:
    assembler = Assembler()
    read(assembler, cut(frames(step(9), 1))[0])
    with pytest.raises(WireError, match="inside another"):
        read(assembler, b"".join(frames(Ping(number=1), 1)))


def test_more_bytes_than_announced_are_refused() -> None:
    assembler = Assembler()
    parts = cut(frames(step(9), 1))
    read(assembler, parts[0])
    with pytest.raises(WireError, match="more bytes"):
        read(assembler, PREFIX.pack(60_000, 1, 0, 0) + bytes(60_000))


@pytest.mark.parametrize(
    "prefix",
    [
        PREFIX.pack(MAX_FRAME_BYTES + 1, 1, 0, 1),
        PREFIX.pack(10, 1, 0, 11),
        PREFIX.pack(10, 1, 4, 10),
        b"\xff" * PREFIX.size,
    ],
)
def test_an_impossible_prefix_is_refused(prefix: bytes) -> None:
    with pytest.raises(WireError, match="frame of"):
        Prefix.parse(prefix)


def test_the_end_frame_says_end() -> None:
    assert Prefix.parse(end_frame()) == Prefix(0, 0, END, 0)
