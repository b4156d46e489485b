"""The name of a numerics class, taken apart and put together."""

from __future__ import annotations

import pytest

from p2pnode.numerics import Numerics


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("float32", Numerics("float32")),
        ("bfloat16+wire-int8", Numerics("bfloat16", "int8")),
        ("bfloat16+int8", Numerics("bfloat16", quant="int8")),
        ("float32+nf4+wire-int8", Numerics("float32", "int8", "nf4")),
    ],
)
def test_a_name_is_read_as_it_is_written(name: str, parts: Numerics) -> None:
    assert Numerics.parse(name) == parts
    assert str(parts) == name


@pytest.mark.parametrize("name", ["", "+", "float64+quant-x+wire-", "bfloat16++wire-y+wire-z"])
def test_what_strangers_announce_never_fails(name: str) -> None:
    assert Numerics.parse(name).row_bytes(128) > 0


@pytest.mark.parametrize(
    ("name", "row_bytes"),
    [
        ("float32", 400),
        ("bfloat16", 200),
        ("bfloat16+wire-int8", 102),
        ("float32+wire-int8", 102),
        ("float32+nf4", 400),
    ],
)
def test_a_row_takes_what_its_coding_leaves_of_it(name: str, row_bytes: int) -> None:
    assert Numerics.parse(name).row_bytes(100) == row_bytes
