"""Inputs that are nearly right: samples with a few bytes, or a field, that are not."""

from __future__ import annotations

import copy
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

MAX_OPERATIONS = 4
MAX_RANDOM_BYTES = 300
ODD_BYTES = b"\x00\x01\x7f\x80\xc0\xc1\xd9\xdc\xde\xdf\xfe\xff[]{}\"\\,:/.-0'\n"
ODD_NUMBERS = (0, 1, 127, 128, 255, 256, (1 << 15) - 1, 1 << 16, (1 << 31) - 1, (1 << 32) - 1)
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1 << 63,
    (1 << 63) - 1,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 300,
    "\ud7ff\x00",
    b"",
    b"\xff" * 40,
    [],
    [[]],
    [0] * 400,
    {},
    {"kind": "step"},
    msgpack.ExtType(5, b"x"),
)

Operation = Callable[[bytearray, random.Random, Sequence[bytes]], None]


def _flip(data: bytearray, rng: random.Random, samples: Sequence[bytes]) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _odd_byte(data: bytearray, rng: random.Random, samples: Sequence[bytes]) -> None:
    data[rng.randrange(len(data))] = rng.choice(ODD_BYTES)


def _insert(data: bytearray, rng: random.Random, samples: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.randrange(1, 9))


def _delete(data: bytearray, rng: random.Random, samples: Sequence[bytes]) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randrange(1, 17)]


def _repeat(data: bytearray, rng: random.Random, samples: Sequence[bytes]) -> None:
    at = rng.randrange(len(data))
    part = bytes(data[at : at + rng.randrange(1, 33)])
    data[at:at] = part * rng.randrange(1, 5)


def _cut(data: bytearray, rng: random.Random, samples: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data)) :]


def _splice(data: bytearray, rng: random.Random, samples: Sequence[bytes]) -> None:
    other = rng.choice(samples)
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other) + 1) :]


def _odd_number(data: bytearray, rng: random.Random, samples: Sequence[bytes]) -> None:
    packed = struct.pack(rng.choice(("<I", ">I", "<H", ">H")), rng.choice(ODD_NUMBERS) & 0xFFFF)
    at = rng.randrange(len(data))
    data[at : at + len(packed)] = packed


OPERATIONS: tuple[Operation, ...] = (
    _flip,
    _odd_byte,
    _insert,
    _delete,
    _repeat,
    _cut,
    _splice,
    _odd_number,
)


def mutated(rng: random.Random, samples: Sequence[bytes]) -> bytes:
    """A sample as it is, one that was tampered with, or noise."""
    kind = rng.randrange(16)
    if kind == 0:
        return rng.choice(samples)
    if kind == 1:
        return rng.randbytes(rng.randrange(MAX_RANDOM_BYTES))
    data = bytearray(rng.choice(samples))
    for _ in range(rng.randint(1, MAX_OPERATIONS)):
        if data:
            rng.choice(OPERATIONS)(data, rng, samples)
    return bytes(data)


def mutated_fields(rng: random.Random, samples: Sequence[bytes]) -> bytes:
    """Like `mutated`, for msgpack tables: half of the time a field gets another value."""
    if rng.random() < 0.5:
        return mutated(rng, samples)
    table = msgpack.unpackb(rng.choice(samples))
    for _ in range(rng.randint(1, 3)):
        _change(rng, table)
    packed: bytes = msgpack.packb(table)
    return packed


def _change(rng: random.Random, table: dict[str, Any]) -> None:
    name = rng.choice(list(table))
    value = table[name]
    if isinstance(value, dict) and value and rng.random() < 0.7:
        return _change(rng, value)
    if isinstance(value, list) and value and rng.random() < 0.7:
        value[rng.randrange(len(value))] = _odd(rng)
        return None
    action = rng.randrange(6)
    if action == 0 and len(table) > 1:
        del table[name]
    elif action == 1:
        table[f"{name}_"] = value
    else:
        table[name] = _odd(rng)
    return None


def _odd(rng: random.Random) -> Any:
    """A value of its own each time: it may be changed further."""
    return copy.deepcopy(rng.choice(ODD_VALUES))
