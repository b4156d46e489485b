"""Packed logprobs: what is written is read, and nothing else."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.types import Chosen
from p2pnode.wire.fields import MAX_ITEMS
from p2pnode.wire.logprobs import MAX_LOGPROBS_BYTES, pack, unpack

logprobs = st.floats(-9999.0, 0.0, width=32)
VOCAB_SIZE = 1 << 20


@given(st.integers(0, 20), st.data())
def test_what_is_packed_is_unpacked(num: int, data: st.DataObject) -> None:
    tops = st.lists(st.tuples(st.integers(0, VOCAB_SIZE - 1), logprobs), min_size=num, max_size=num)
    one = st.builds(Chosen, st.integers(0, VOCAB_SIZE - 1), logprobs, tops.map(tuple))
    chosen = data.draw(st.lists(one, max_size=4))
    packed = pack(chosen)
    assert unpack(packed, [each.token_id for each in chosen], num, VOCAB_SIZE) == chosen


def test_nothing_is_packed_where_nothing_was_asked_for() -> None:
    chosen = [Chosen(5), Chosen(6)]
    assert pack(chosen) == b""
    assert unpack(b"", [5, 6], None, VOCAB_SIZE) == chosen


def test_the_largest_answer_is_within_the_limit() -> None:
    full = Chosen(1, -0.5, ((1, -0.5),) * 20)
    assert len(pack([full] * MAX_ITEMS)) == MAX_LOGPROBS_BYTES


def test_a_small_vocabulary_has_fewer_likely_tokens() -> None:
    chosen = Chosen(1, -0.5, ((1, -0.5), (0, -1.0)))
    assert unpack(pack([chosen]), [1], 20, 2) == [chosen]


@pytest.mark.parametrize(
    ("data", "num"),
    [
        (b"1234", None),
        (b"", 0),
        (b"12345", 0),
        (struct.pack("<f", 0.5), 0),
        (struct.pack("<f", math.nan), 0),
        (struct.pack("<f", -math.inf), 0),
        (struct.pack("<fIf", -1.0, 10, -1.0), 1),
        (struct.pack("<fIf", -1.0, 1, 1.0), 1),
        (struct.pack("<fIf", -1.0, 1, -1.0), 2),
    ],
)
def test_anything_else_is_refused(data: bytes, num: int | None) -> None:
    with pytest.raises(ValueError, match="logprobs"):
        unpack(data, [5], num, 10)


@given(st.binary(max_size=200), st.none() | st.integers(0, 20))
def test_garbage_never_raises_anything_else(data: bytes, num: int | None) -> None:
    try:
        assert pack(unpack(data, [5], num, 10)) == data
    except ValueError:
        return
