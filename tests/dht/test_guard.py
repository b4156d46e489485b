"""The decoder that strangers reach first."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.dht.backend import DictionaryDHTValue, MSGPackSerializer
from p2pnode.dht.guard import MAX_BYTES, MAX_DEPTH, install_guard, loads

TUPLE, DICTIONARY = 0x40, 0x50


def nested(levels: int, code: int = TUPLE) -> bytes:
    """Extension values inside each other."""
    data: bytes = msgpack.packb([])
    for _ in range(levels):
        data = msgpack.packb([msgpack.ExtType(code, data)])
    return data


def dictionary(*items: Any, fields: tuple[Any, ...] = (math.inf, 0.0)) -> bytes:
    """As hivemind sends it: (maximum size, latest expiry, items)."""
    inner = msgpack.packb([*fields, list(items)])
    packed: bytes = msgpack.packb(msgpack.ExtType(DICTIONARY, inner))
    return packed


def test_what_hivemind_writes_is_read() -> None:
    value = DictionaryDHTValue()
    with value.freeze():
        value.store("a", b"x", 5.0)
        value.store("b", b"y", 7.0)
        data = MSGPackSerializer.dumps(value)
    read = loads(data)
    with read.freeze():
        assert {name: tuple(item) for name, item in read.items()} == {
            "a": (b"x", 5.0),
            "b": (b"y", 7.0),
        }
    assert read.latest_expiration_time == 7.0
    assert loads(MSGPackSerializer.dumps((1, ("two", b"3")))) == (1, ("two", b"3"))


@pytest.mark.parametrize("code", [TUPLE, DICTIONARY])
@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 200, 2000])
def test_deep_nesting_is_refused(levels: int, code: int) -> None:
    with pytest.raises(ValueError, match="levels"):
        loads(nested(levels, code))


def test_a_few_levels_are_allowed() -> None:
    assert loads(nested(MAX_DEPTH - 1))


@pytest.mark.parametrize("code", [TUPLE, DICTIONARY])
def test_once_installed_it_is_what_hivemind_itself_decodes_with(code: int) -> None:
    install_guard()
    deep = nested(2000, code)
    for decode in (
        MSGPackSerializer.loads,
        DictionaryDHTValue.unpackb,
        lambda data: MSGPackSerializer._decode_ext_types(TUPLE, data),
    ):
        with pytest.raises(ValueError):
            decode(deep)


def test_more_than_a_mebibyte_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes of msgpack"):
        loads(msgpack.packb(b"x" * MAX_BYTES))


def test_unknown_extension_types_are_refused() -> None:
    with pytest.raises(ValueError, match="not known"):
        loads(msgpack.packb(msgpack.ExtType(5, b"")))


@pytest.mark.parametrize(
    "data",
    [
        dictionary((1, b"x", 5.0)),
        dictionary(("a", "x", 5.0)),
        dictionary(("a", b"x", 5)),
        dictionary(("a", b"x", True)),
        dictionary(("a", b"x", math.nan)),
        dictionary(("a", b"x", math.inf)),
        dictionary(("a", b"x")),
        dictionary("a"),
        dictionary(([], b"x", 5.0)),
        dictionary(fields=(1.0,)),
        msgpack.packb(msgpack.ExtType(DICTIONARY, msgpack.packb({}))),
        msgpack.packb(msgpack.ExtType(DICTIONARY, b"")),
        msgpack.packb({(1, 2): [1]}),
        b"\x81\x90\x01",
        b"",
        b"\xc1",
    ],
)
def test_dictionaries_of_another_form_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        loads(data)


def test_a_dictionary_cannot_say_how_much_of_it_to_keep() -> None:
    read = loads(dictionary(("a", b"x", 5.0), ("b", b"y", 6.0), fields=(1, 1e99)))
    assert set(read.data) == {"a", "b"}
    assert read.latest_expiration_time == 6.0


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda b: b"\xc7" + b)))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    install_guard()
    try:
        loads(data)
    except ValueError:
        return
