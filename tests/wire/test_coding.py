"""Codings of hidden states: what they keep, what they cost, and what they refuse."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.numerics import INT8
from p2pnode.types import DTYPE_BYTES, Tensor
from p2pnode.wire.coding import (
    CODINGS,
    LOSSLESS,
    MAX_CODED_BYTES,
    choose,
    compresses,
    recoded,
)

MBIT = 125_000


def floats(tensor: Tensor) -> np.ndarray:
    if tensor.dtype == "bfloat16":
        bits = np.frombuffer(tensor.data, "<u2").astype(np.uint32) << 16
        return bits.view(np.float32).reshape(tensor.shape)
    dtype = "<f4" if tensor.dtype == "float32" else "<f2"
    return np.frombuffer(tensor.data, dtype).astype(np.float32).reshape(tensor.shape)


def tensor_of(values: np.ndarray, dtype: str = "bfloat16") -> Tensor:
    if dtype == "bfloat16":
        data = (values.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    else:
        data = values.astype("<f4" if dtype == "float32" else "<f2").tobytes()
    return Tensor(dtype, values.shape, data)


def hidden(rows: int, width: int, dtype: str = "bfloat16", scale: float = 1.0) -> Tensor:
    return tensor_of(np.random.default_rng(rows).normal(0, scale, (rows, width)), dtype)


@given(st.binary(min_size=2, max_size=4000))
def test_without_loss_means_every_bit_also_of_nonsense(data: bytes) -> None:
    tensor = Tensor("bfloat16", (1, len(data) // 2), data[: len(data) // 2 * 2])
    assert bytes(recoded(tensor, LOSSLESS).data) == tensor.data


@pytest.mark.parametrize(("coding", "share"), [(LOSSLESS, 0.72), (INT8, 0.53)])
def test_a_block_is_as_short_as_promised_and_fits_into_a_frame(coding: str, share: float) -> None:
    tensor = hidden(64, 512)
    kind = CODINGS[coding]
    size = kind.block_bytes("bfloat16", 512)
    parts = [
        sum(map(len, kind.encode(memoryview(tensor.data)[at : at + size], "bfloat16", 512)))
        for at in range(0, tensor.num_bytes, size)
    ]
    assert sum(parts) <= share * tensor.num_bytes
    random = np.random.default_rng(0).bytes(size)
    assert sum(map(len, kind.encode(memoryview(random), "bfloat16", 512))) <= MAX_CODED_BYTES


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float16"])
@pytest.mark.parametrize("width", [1, 64, 100, 576])
def test_int8_is_off_by_half_a_step_at_most(dtype: str, width: int) -> None:
    tensor = hidden(9, width, dtype)
    before, after = floats(tensor), floats(recoded(tensor, INT8))
    for start in range(0, width, 64):
        group = before[:, start : start + 64]
        step = np.abs(group).max(axis=1, keepdims=True) / 63.5
        assert (np.abs(group - after[:, start : start + 64]) <= step / 2).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float16"])
@pytest.mark.parametrize("scale", [0.0, 1e-42, 1e-7, 1.0, 1e4])
def test_coding_what_was_decoded_changes_nothing(dtype: str, scale: float) -> None:
    once = recoded(hidden(7, 130, dtype, scale), INT8)
    assert bytes(recoded(once, INT8).data) == bytes(once.data)


def test_int8_does_not_depend_on_how_rows_are_cut_into_chunks() -> None:
    tensor = hidden(50, 1000)
    whole = bytes(recoded(tensor, INT8).data)
    for cut in (1, 7, 33, 49):
        parts = (
            Tensor("bfloat16", (cut, 1000), tensor.data[: cut * 2000]),
            Tensor("bfloat16", (50 - cut, 1000), tensor.data[cut * 2000 :]),
        )
        assert b"".join(bytes(recoded(part, INT8).data) for part in parts) == whole


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float16"])
def test_int8_of_what_is_not_finite_or_hardly_so_is_finite(dtype: str) -> None:
    big = {"float16": 65504.0}.get(dtype, 3.38e38)
    values = np.array([[np.inf, -np.inf, np.nan, big, -big, 1.0]], np.float32)
    after = floats(recoded(tensor_of(values, dtype), INT8))
    assert np.isfinite(after).all()
    assert after[0, 2] == 0
    assert after[0, 3] > 0.9 * big


@given(st.binary(max_size=300), st.sampled_from([LOSSLESS, INT8]))
def test_random_bytes_fill_a_block_or_are_refused(data: bytes, coding: str) -> None:
    plain = memoryview(bytearray(256))
    try:
        CODINGS[coding].decode(memoryview(data), plain, "bfloat16", 64)
    except ValueError:
        assert bytes(plain) == bytes(256), "nothing was written of what was refused"


@pytest.mark.parametrize("count", [127, 129, 50_000_000])
def test_exponents_that_are_not_as_many_as_values_are_refused(count: int) -> None:
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = bytes(128) + coder.compress(bytes(count)) + coder.flush()
    with pytest.raises(ValueError, match="not 128 exponents"):
        CODINGS[LOSSLESS].decode(memoryview(bomb), memoryview(bytearray(256)), "bfloat16", 128)


def test_bytes_behind_the_exponents_are_refused() -> None:
    plain = memoryview(bytes(256))
    coded = b"".join(CODINGS[LOSSLESS].encode(plain, "bfloat16", 128)) + b"x"
    with pytest.raises(ValueError, match="not 128 exponents"):
        CODINGS[LOSSLESS].decode(memoryview(coded), memoryview(bytearray(256)), "bfloat16", 128)


@pytest.mark.parametrize("coded", [bytes([255]) + bytes(64), bytes([0, 128]) + bytes(63)])
def test_a_power_or_a_step_out_of_range_is_refused(coded: bytes) -> None:
    with pytest.raises(ValueError, match="out of range"):
        CODINGS[INT8].decode(memoryview(coded), memoryview(bytearray(128)), "bfloat16", 64)


@pytest.mark.parametrize(
    ("coding", "dtype", "width"),
    [
        (LOSSLESS, "float32", 64),
        (INT8, "int64", 64),
        (INT8, "bfloat16", 0),
        (INT8, "x", 9),
        (INT8, "bfloat16", MAX_CODED_BYTES),
    ],
)
def test_a_coding_says_what_it_is_not_for(coding: str, dtype: str, width: int) -> None:
    with pytest.raises(ValueError, match=r"code"):
        CODINGS[coding].block_bytes(dtype, width)


@pytest.mark.parametrize(
    ("num_bytes", "up_bytes_per_s", "pays"),
    [
        (1 << 20, 20 * MBIT, True),
        (8192, 20 * MBIT, True),
        (1 << 20, 200 * MBIT, True),
        (1 << 20, 1000 * MBIT, False),
        (8192, 1000 * MBIT, False),
        (256, 1 * MBIT, False),
        (1 << 20, 0.0, False),
    ],
)
def test_coding_pays_where_the_link_is_slower(
    num_bytes: int, up_bytes_per_s: float, pays: bool
) -> None:
    coding_bytes_per_s = 100e6
    told = compresses(
        num_bytes, up_bytes_per_s=up_bytes_per_s, coding_bytes_per_s=coding_bytes_per_s
    )
    assert told is pays


@pytest.mark.parametrize(
    ("dtype", "shape", "lossy", "coding"),
    [
        ("bfloat16", (64, 64), "", LOSSLESS),
        ("float32", (64, 64), "", ""),
        ("bfloat16", (64, 64), INT8, INT8),
        ("float32", (1, 64), INT8, INT8),
        ("int64", (640,), INT8, ""),
        ("bfloat16", (640,), INT8, ""),
    ],
)
def test_only_hidden_states_are_coded(
    dtype: str, shape: tuple[int, ...], lossy: str, coding: str
) -> None:
    tensor = Tensor(dtype, shape, bytes(int(np.prod(shape)) * DTYPE_BYTES[dtype]))
    assert choose(tensor, lossy=lossy, up_bytes_per_s=MBIT, coding_bytes_per_s=1e8) == coding
