"""One reader and one writer per type of a message's field, for `wire.codec`; strict, bounded."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable
from typing import Any

from p2pnode.sampling import AtMost
from p2pnode.types import LayerRange, PeerId, Tensor
from p2pnode.wire.coding import CODINGS

MAX_TEXT_BYTES = 2048
MAX_ITEMS = 64
MAX_INT = (1 << 63) - 1

Reader = Callable[[Any], Any]
Writer = Callable[[Any], Any]


def reader(hint: Any) -> Reader:
    """What turns msgpack's value into a field of that type; it raises ValueError, TypeError.

    ``Annotated[..., AtMost(n)]`` sets another limit than the usual one.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        limit = next(each.num for each in hint.__metadata__ if isinstance(each, AtMost))
        return _limited_reader(args[0], limit)
    if origin in (typing.Union, types.UnionType):
        inner = reader(next(arg for arg in args if arg is not types.NoneType))
        return lambda value: None if value is None else inner(value)
    if origin is tuple and args[-1] is not Ellipsis:
        return functools.partial(_read_parts, [reader(arg) for arg in args])
    if origin is tuple:
        return functools.partial(_read_items, reader(args[0]))
    if dataclasses.is_dataclass(hint) and hint not in (Tensor, LayerRange):
        hints = typing.get_type_hints(hint, include_extras=True)
        readers = {f.name: reader(hints[f.name]) for f in dataclasses.fields(hint)}
        return functools.partial(_read_nested, hint, readers)
    return _SIMPLE[hint]


def _limited_reader(hint: Any, limit: int) -> Reader:
    if typing.get_origin(hint) is tuple:
        read = reader(typing.get_args(hint)[0])
        return functools.partial(_read_items, read, max_items=limit)
    return functools.partial(_read_str if hint is str else _read_bytes, max_bytes=limit)


def writer(hint: Any) -> Writer | None:
    """What turns a field of that type into msgpack's value; None: it is one already."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return writer(args[0])
    if origin in (typing.Union, types.UnionType):
        return writer(next(arg for arg in args if arg is not types.NoneType))
    if origin is tuple and args[-1] is not Ellipsis:
        return list  # of plain values
    if origin is tuple:
        inner = writer(args[0])
        return list if inner is None else lambda items: [inner(item) for item in items]
    if hint is Tensor:
        return lambda tensor: [tensor.dtype, list(tensor.shape)]
    if hint is LayerRange:
        return lambda layers: [layers.start, layers.stop]
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        parts = [(f.name, writer(hints[f.name])) for f in dataclasses.fields(hint)]
        return functools.partial(_write_nested, parts)
    return None


def _write_nested(parts: list[tuple[str, Writer | None]], value: object) -> dict[str, Any]:
    out = {}
    for name, write in parts:
        item = getattr(value, name)
        out[name] = item if write is None or item is None else write(item)
    return out


def _read_nested(cls: Any, readers: dict[str, Reader], value: Any) -> Any:
    if type(value) is not dict or value.keys() != readers.keys():
        raise ValueError(f"is not a {cls.__name__}")
    return cls(**{field: read(value[field]) for field, read in readers.items()})


def _read_items(read: Reader, value: Any, max_items: int = MAX_ITEMS) -> tuple[Any, ...]:
    if type(value) is not list or len(value) > max_items:
        raise ValueError(f"is not a list of at most {max_items} items")
    return tuple([read(item) for item in value])


def _read_parts(reads: list[Reader], value: Any) -> tuple[Any, ...]:
    if type(value) is not list or len(value) != len(reads):
        raise ValueError(f"is not a list of {len(reads)} items")
    return tuple([read(item) for read, item in zip(reads, value, strict=True)])


def _read_int(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_INT:
        raise ValueError("is not an integer from 0 to 2^63 - 1")
    return value


def _read_float(value: Any) -> float:
    if type(value) is not float or not math.isfinite(value):
        raise ValueError("is not a finite float")
    return value


def _read_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("is not true or false")
    return value


def _read_str(value: Any, max_bytes: int = MAX_TEXT_BYTES) -> str:
    if type(value) is not str or len(value.encode("utf-8", "surrogatepass")) > max_bytes:
        raise ValueError(f"is not a text of at most {max_bytes} bytes")
    return value


def _read_bytes(value: Any, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    if type(value) is not bytes or len(value) > max_bytes:
        raise ValueError(f"is not at most {max_bytes} bytes")
    return value


def _read_peer(value: Any) -> PeerId:
    return PeerId.parse(_read_str(value))


def _read_layers(value: Any) -> LayerRange:
    if type(value) is not list or len(value) != 2:
        raise ValueError("is not [start, stop]")
    return LayerRange(_read_int(value[0]), _read_int(value[1]))


def _read_tensor(value: Any) -> tuple[str, tuple[int, ...], str]:
    if type(value) is not list or not 2 <= len(value) <= 3 or type(value[0]) is not str:
        raise ValueError("is not [dtype, shape], nor [dtype, shape, coding]")
    coding = value[2] if len(value) == 3 else ""
    if len(value) == 3 and (type(coding) is not str or coding not in CODINGS):
        raise ValueError(f"coding {str(coding)[:20]!r} is not one of {', '.join(CODINGS)}")
    return value[0], _read_items(_read_int, value[1]), coding


_SIMPLE: dict[Any, Reader] = {
    int: _read_int,
    float: _read_float,
    bool: _read_bool,
    str: _read_str,
    bytes: _read_bytes,
    PeerId: _read_peer,
    LayerRange: _read_layers,
    Tensor: _read_tensor,
}
