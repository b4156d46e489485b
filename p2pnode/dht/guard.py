"""Replaces the decoder of hivemind's msgpack: with its own, strangers can kill the process.

Its extension values nest, and each level is a recursion in C: 200 levels in one store request
overflow the stack. Ours allows `MAX_DEPTH` levels and `MAX_BYTES`, refuses unknown types, and
checks every field of a dictionary, so that no odd type travels further in.
"""

from __future__ import annotations

import math
from typing import Any

from p2pnode.dht.backend import DictionaryDHTValue, MSGPackSerializer

MAX_DEPTH = 8
MAX_BYTES = 1 << 20

_TUPLE = 0x40
_DICTIONARY = 0x50

# hivemind's `loads` asks its class how to decode extensions; we call it with our own levels.
_HIVEMIND_LOADS = MSGPackSerializer.loads.__func__


def install_guard() -> None:
    """Make every decoder of hivemind in this process ours. Call before any network is up."""
    MSGPackSerializer.loads = staticmethod(loads)
    MSGPackSerializer._decode_ext_types = _Level(0)._decode_ext_types


def loads(data: bytes) -> Any:
    """Decode msgpack with hivemind's tuples and dictionaries; ValueError on anything beyond."""
    try:
        return _Level(0).loads(data)
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not msgpack of ours: {type(error).__name__}") from error


class _Level:
    """The decoder of extension values at one depth."""

    def __init__(self, depth: int) -> None:
        self._depth = depth

    def loads(self, data: bytes) -> Any:
        if self._depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} levels of extension values")
        if len(data) > MAX_BYTES:
            raise ValueError(f"{len(data)} bytes of msgpack, at most {MAX_BYTES}")
        return _HIVEMIND_LOADS(self, data)

    def _decode_ext_types(self, type_code: int, data: bytes) -> Any:
        if type_code not in (_TUPLE, _DICTIONARY):
            raise ValueError(f"extension type {type_code} is not known")
        inner = _Level(self._depth + 1).loads(data)
        if type(inner) is not list:
            raise ValueError("extension value is not a list")
        return tuple(inner) if type_code == _TUPLE else _dictionary(inner)


def _dictionary(fields: list[Any]) -> DictionaryDHTValue:
    """Of (maximum size, latest expiry, items) only the items count; the rest is the sender's."""
    if len(fields) != 3 or type(fields[2]) is not list:
        raise ValueError("not a dictionary value")
    dictionary = DictionaryDHTValue()
    with dictionary.freeze():
        for item in fields[2]:
            if type(item) is not list or [type(part) for part in item] != [str, bytes, float]:
                raise ValueError("dictionary item is not (subkey, value, expiry)")
            if not math.isfinite(item[2]):
                raise ValueError("dictionary item has no finite expiry")
            dictionary.store(*item)
    return dictionary
