"""Codings of hidden states on the wire, block by block; pure.

A tensor's header names its coding; each frame then holds one block, coded on its own. Every frame
is decoded into exactly the bytes of its block, so nothing that a peer sends can grow:

- ``exponents``, lossless, of bfloat16: a value turned left by one bit is its exponent and, beside
  it, sign and mantissa. The exponents of a trained model's hidden states carry 2 to 3 bits and
  are Huffman-coded (RFC 1951), the other bytes look random and travel as they are.
- ``int8``, lossy: groups of 64 values of a row share a power of two, as in OCP's "Microscaling
  Formats (MX)" v1.0, section 5; the last group of a row may be shorter. Such values are exact in
  every dtype here, so coding what was decoded changes nothing, however rows are cut into chunks.
"""

from __future__ import annotations

import zlib
from typing import Protocol

import numpy as np
import numpy.typing as npt

from p2pnode.numerics import INT8
from p2pnode.numerics import INT8_GROUP as GROUP
from p2pnode.types import DTYPE_BYTES, Tensor

LOSSLESS = "exponents"

MAX_CODED_BYTES = 48 * 1024
"""Of one block: it fits into a frame beside any header."""

MIN_SAVING_BYTES = 1024
"""Below, the code's own table eats most of what it saves."""
SAVED = 0.3
"""The share that ``exponents`` saves; 0.33 was measured on trained models."""
FIXED_S = 100e-6
"""What coding and decoding a message cost beside the bytes, both ends together."""

_POWERS = {"bfloat16": (-120, 121), "float32": (-120, 121), "float16": (-24, 9)}
"""The lowest and highest power of two of which 127 steps are exact and finite in that dtype."""

Buffers = tuple[bytes | memoryview, ...]


class Coding(Protocol):
    """One way to write tensors of [rows, width]."""

    def block_bytes(self, dtype: str, width: int) -> int:
        """Plain bytes of a block, the last of a tensor may have less.

        Raises ValueError for tensors that this coding is not for.
        """
        ...

    def encode(self, plain: memoryview, dtype: str, width: int) -> Buffers:
        """The coded bytes of one block, at most `MAX_CODED_BYTES`."""
        ...

    def decode(self, coded: memoryview, plain: memoryview, dtype: str, width: int) -> None:
        """Fill one block; raises ValueError unless the bytes stand for just so many."""
        ...


def choose(tensor: Tensor, *, lossy: str, up_bytes_per_s: float, coding_bytes_per_s: float) -> str:
    """The name of the coding for a tensor; empty: none, also for whatever is no hidden state.

    lossy: the coding that the numerics class names; the others see `compresses`
    """
    if len(tensor.shape) != 2 or tensor.dtype not in _POWERS:
        return ""
    if lossy or tensor.dtype != "bfloat16":
        return lossy
    pays = compresses(
        tensor.num_bytes, up_bytes_per_s=up_bytes_per_s, coding_bytes_per_s=coding_bytes_per_s
    )
    return LOSSLESS if pays else ""


def compresses(num_bytes: int, *, up_bytes_per_s: float, coding_bytes_per_s: float) -> bool:
    """Whether a tensor of so many bytes is at the other end earlier when coded without loss.

    up_bytes_per_s: how fast the link sends; 0 when not known
    coding_bytes_per_s: plain bytes coded and decoded per second, one after the other
    """
    if num_bytes < MIN_SAVING_BYTES or up_bytes_per_s <= 0:
        return False
    return num_bytes * SAVED / up_bytes_per_s > num_bytes / coding_bytes_per_s + FIXED_S


def recoded(tensor: Tensor, coding: str) -> Tensor:
    """What the other end makes of a tensor of [rows, width]; raises ValueError as `encode`."""
    kind, (dtype, width) = CODINGS[coding], (tensor.dtype, tensor.shape[-1])
    size, plain = kind.block_bytes(dtype, width), memoryview(bytearray(tensor.num_bytes))
    data = memoryview(tensor.data).cast("B")
    for at in range(0, len(data), size):
        coded = b"".join(kind.encode(data[at : at + size], dtype, width))
        kind.decode(memoryview(coded), plain[at : at + size], dtype, width)
    return Tensor(dtype, tensor.shape, plain)


class Exponents:
    """Lossless, for bfloat16: sign and mantissa of each value, then the exponents' code."""

    BLOCK_BYTES = 32 * 1024

    def block_bytes(self, dtype: str, width: int) -> int:
        """See `Coding.block_bytes`."""
        if dtype != "bfloat16":
            raise ValueError(f"{LOSSLESS} codes bfloat16, not {dtype}")
        return self.BLOCK_BYTES

    def encode(self, plain: memoryview, dtype: str, width: int) -> Buffers:
        """See `Coding.encode`."""
        values = np.frombuffer(plain, "<u2")
        turned = ((values << 1) | (values >> 15)).view(np.uint8)
        # Matches are hopeless in exponents: a Huffman code alone is twice as fast and as short.
        coder = zlib.compressobj(1, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
        code = coder.compress(turned[1::2].tobytes()) + coder.flush()
        return turned[0::2].tobytes(), code

    def decode(self, coded: memoryview, plain: memoryview, dtype: str, width: int) -> None:
        """See `Coding.decode`."""
        count = len(plain) // 2
        if len(coded) <= count:
            raise ValueError(f"{len(coded)} bytes stand for no {len(plain)}")
        decoder = zlib.decompressobj(-15)
        try:
            exponents = decoder.decompress(coded[count:], count + 1)
        except zlib.error as error:
            raise ValueError("its exponents are not deflated") from error
        if len(exponents) != count or not decoder.eof or decoder.unused_data:
            raise ValueError(f"not {count} exponents")
        turned = np.empty(count, "<u2")
        halves = turned.view(np.uint8)
        halves[0::2] = np.frombuffer(coded[:count], np.uint8)
        halves[1::2] = np.frombuffer(exponents, np.uint8)
        values = np.frombuffer(plain, "<u2")
        np.bitwise_or(turned >> 1, turned << 15, out=values)


class Int8:
    """Lossy: a power of two per group (its exponent, one byte), then one byte per value."""

    BLOCK_BYTES = 64 * 1024

    def block_bytes(self, dtype: str, width: int) -> int:
        """See `Coding.block_bytes`."""
        if dtype not in _POWERS:
            raise ValueError(f"{INT8} codes floats, not {dtype}")
        if not 0 < width + _groups(width) <= MAX_CODED_BYTES:
            raise ValueError(f"{INT8} does not code rows of {width} values")
        row_bytes = width * DTYPE_BYTES[dtype]
        return max(1, self.BLOCK_BYTES // row_bytes) * row_bytes

    def encode(self, plain: memoryview, dtype: str, width: int) -> Buffers:
        """See `Coding.encode`. What is not finite becomes the largest step, or 0 for NaN."""
        lowest, highest = _POWERS[dtype]
        groups = _grouped(_floats(plain, dtype).reshape(-1, width))
        peaks = np.abs(groups).max(axis=2)
        if not np.isfinite(peaks).all():
            groups = np.nan_to_num(groups, nan=0.0)
            peaks = np.abs(groups).max(axis=2)
        share, power = np.frexp(peaks)
        # The smallest power that holds the peak in 127 steps.
        power = np.clip(power - 7 + (share > 127 / 128), lowest, highest)
        steps = np.rint(groups * np.ldexp(np.float32(1), -power)[:, :, None])
        steps = np.clip(steps, -127, 127).astype(np.int8).reshape(len(groups), -1)[:, :width]
        return (power - lowest).astype(np.uint8).tobytes(), steps.tobytes()

    def decode(self, coded: memoryview, plain: memoryview, dtype: str, width: int) -> None:
        """See `Coding.decode`."""
        lowest, highest = _POWERS[dtype]
        values = _target(plain, dtype)
        rows, num_groups = len(values) // width, _groups(width)
        if len(coded) != rows * (width + num_groups):
            raise ValueError(f"{len(coded)} bytes stand for no {rows} rows of {width}")
        powers = np.frombuffer(coded[: rows * num_groups], np.uint8)
        steps = np.frombuffer(coded[rows * num_groups :], np.int8)
        if powers.max(initial=0) > highest - lowest or steps.min(initial=0) < -127:
            raise ValueError("a power or a step out of range")
        scales = np.ldexp(np.float32(1), powers.astype(np.int32) + lowest)
        per_value = np.repeat(scales.reshape(rows, num_groups), GROUP, axis=1)[:, :width]
        exact = steps.reshape(rows, width) * per_value
        if dtype == "bfloat16":
            exact = exact.view(np.uint32) >> 16
        values[:] = exact.reshape(-1)


CODINGS: dict[str, Coding] = {LOSSLESS: Exponents(), INT8: Int8()}
LOSSY = frozenset({INT8})


def _groups(width: int) -> int:
    return -(-width // GROUP)


def _grouped(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[rows, width] -> [rows, groups, 64], the last group filled up with zeros."""
    num_rows, width = rows.shape
    missing = -width % GROUP
    if missing:
        rows = np.pad(rows, ((0, 0), (0, missing)))
    return rows.reshape(num_rows, -1, GROUP)


def _floats(plain: memoryview, dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "bfloat16":
        return (np.frombuffer(plain, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(plain, "<f4" if dtype == "float32" else "<f2").astype(np.float32)


def _target(plain: memoryview, dtype: str) -> npt.NDArray[np.generic]:
    """The buffer as numbers to write: numpy has no bfloat16, its bits are the upper of float32."""
    return np.frombuffer(plain, {"bfloat16": "<u2", "float32": "<f4"}.get(dtype, "<f2"))
