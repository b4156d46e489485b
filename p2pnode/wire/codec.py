"""Frozen dataclasses to msgpack headers and back, strictly.

A message is a keyword-only frozen dataclass marked ``@message("kind")``. Its header is one msgpack
map: ``kind`` and every field by name. At most one field is a `Tensor`; the header holds only its
dtype and shape, its bytes travel beside the header and are never copied into msgpack.

Strict means: unknown kind, missing or extra field, wrong type (``True`` is no int), a value out of
range, too long, trailing bytes: `WireError`, naming kind and field. Sizes are checked before
anything of that size is built.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import msgpack

from p2pnode.errors import WireError
from p2pnode.types import DTYPE_BYTES, LayerRange, PeerId, Tensor

MAX_HEADER_BYTES = 16 * 1024
MAX_TEXT_BYTES = 2048
MAX_ITEMS = 64
MAX_INT = (1 << 63) - 1

Reader = Callable[[Any], Any]
Writer = Callable[[Any], Any]

T = TypeVar("T")

_EMPTY = memoryview(b"")


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """How one message class is read and written."""

    name: str
    cls: type
    readers: dict[str, Reader]
    writers: tuple[tuple[str, Writer | None], ...]
    tensor: str | None


_KINDS: dict[str, Kind] = {}
_KIND_OF: dict[type, Kind] = {}


@dataclass_transform(frozen_default=True, kw_only_default=True)
def message(name: str) -> Callable[[type[T]], type[T]]:
    """Register a class as the message of that kind; makes it a frozen keyword-only dataclass."""

    def register(cls: type[T]) -> type[T]:
        made = dataclasses.dataclass(frozen=True, slots=True, kw_only=True)(cls)
        register_kind(name, made)
        return made

    return register


def register_kind(name: str, cls: type) -> None:
    """Register a dataclass that lives elsewhere (an `Announcement`) under a kind of its own."""
    hints = typing.get_type_hints(cls)
    fields = [field.name for field in dataclasses.fields(cls)]
    tensors = [field for field in fields if hints[field] in (Tensor, Tensor | None)]
    if name in _KINDS or len(tensors) > 1:
        raise TypeError(f"message {name}: registered twice, or more than one tensor")
    kind = Kind(
        name=name,
        cls=cls,
        readers={field: _reader(hints[field]) for field in fields},
        writers=tuple((field, _writer(hints[field])) for field in fields),
        tensor=tensors[0] if tensors else None,
    )
    _KINDS[name] = _KIND_OF[cls] = kind


def kinds() -> tuple[Kind, ...]:
    """All registered kinds, for the printed table and the fuzz tests."""
    return tuple(_KINDS.values())


def encode(value: object) -> tuple[bytes, memoryview]:
    """The header of a message, and the bytes of its tensor (empty without one).

    Raises WireError when the header would be too long.
    """
    kind = _KIND_OF[type(value)]
    header: dict[str, Any] = {"kind": kind.name}
    for name, write in kind.writers:
        item = getattr(value, name)
        header[name] = item if write is None or item is None else write(item)
    packed = msgpack.packb(header)
    if len(packed) > MAX_HEADER_BYTES:
        raise WireError(f"{kind.name}: header of {len(packed)} bytes, at most {MAX_HEADER_BYTES}")
    tensor = getattr(value, kind.tensor) if kind.tensor else None
    return packed, _EMPTY if tensor is None else memoryview(tensor.data).cast("B")


@dataclasses.dataclass(frozen=True, slots=True)
class Pending:
    """A checked header whose tensor bytes may still be on their way."""

    kind: Kind
    values: dict[str, Any]

    @property
    def num_bytes(self) -> int:
        """How many tensor bytes the header announces; not yet checked against any limit."""
        described = self.values[self.kind.tensor] if self.kind.tensor else None
        if described is None:
            return 0
        dtype, shape = described
        return int(math.prod(shape)) * DTYPE_BYTES.get(dtype, 0)

    def finish(self, body: bytes | bytearray | memoryview) -> Any:
        """The message; raises WireError unless the bytes fit the header."""
        kind, values = self.kind, self.values
        described = values[kind.tensor] if kind.tensor else None
        if described is None and len(body):
            raise WireError(f"{kind.name}: {len(body)} bytes beside a message without a tensor")
        try:
            if described is not None:
                dtype, shape = described
                values = {**values, kind.tensor or "": Tensor(dtype, shape, body)}
            return kind.cls(**values)
        except ValueError as error:
            raise WireError(f"{kind.name}: {error}") from error


def decode(header: bytes | memoryview, body: bytes | bytearray | memoryview = b"") -> Any:
    """The message of a header and the bytes beside it; raises WireError."""
    return decode_header(header).finish(body)


def decode_header(header: bytes | memoryview) -> Pending:
    """Check a header on its own; raises WireError."""
    if len(header) > MAX_HEADER_BYTES:
        raise WireError(f"header of {len(header)} bytes, at most {MAX_HEADER_BYTES}")
    try:
        fields = msgpack.unpackb(header, max_ext_len=0, max_array_len=4096, max_map_len=64)
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise WireError(f"header is not msgpack: {type(error).__name__}") from error
    name = fields.pop("kind", None) if type(fields) is dict else None
    kind = _KINDS.get(name) if type(name) is str else None
    if kind is None:
        raise WireError(f"unknown kind of message: {str(name)[:20]!r}")
    if fields.keys() != kind.readers.keys():
        odd = sorted(str(name)[:20] for name in fields.keys() ^ kind.readers.keys())
        raise WireError(f"{kind.name}: missing or extra fields: {', '.join(odd[:8])}")
    values: dict[str, Any] = {}
    for name, read in kind.readers.items():
        try:
            values[name] = read(fields[name])
        except (ValueError, TypeError) as error:
            raise WireError(f"{kind.name}.{name}: {error}") from error
    return Pending(kind, values)


# --- one reader and one writer per type of field


def _reader(hint: Any) -> Reader:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = _reader(next(arg for arg in args if arg is not types.NoneType))
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        return functools.partial(_read_items, _reader(args[0]))
    if dataclasses.is_dataclass(hint) and hint not in (Tensor, LayerRange):
        hints = typing.get_type_hints(hint)
        readers = {f.name: _reader(hints[f.name]) for f in dataclasses.fields(hint)}
        return functools.partial(_read_nested, hint, readers)
    return _SIMPLE[hint]


def _writer(hint: Any) -> Writer | None:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _writer(next(arg for arg in args if arg is not types.NoneType))
    if origin is tuple:
        inner = _writer(args[0])
        return list if inner is None else lambda items: [inner(item) for item in items]
    if hint is Tensor:
        return lambda tensor: [tensor.dtype, list(tensor.shape)]
    if hint is LayerRange:
        return lambda layers: [layers.start, layers.stop]
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        parts = [(f.name, _writer(hints[f.name])) for f in dataclasses.fields(hint)]
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


def _read_items(read: Reader, value: Any) -> tuple[Any, ...]:
    if type(value) is not list or len(value) > MAX_ITEMS:
        raise ValueError(f"is not a list of at most {MAX_ITEMS} items")
    return tuple([read(item) for item in value])


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


def _read_str(value: Any) -> str:
    if type(value) is not str or len(value.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        raise ValueError(f"is not a text of at most {MAX_TEXT_BYTES} bytes")
    return value


def _read_bytes(value: Any) -> bytes:
    if type(value) is not bytes or len(value) > MAX_TEXT_BYTES:
        raise ValueError(f"is not at most {MAX_TEXT_BYTES} bytes")
    return value


def _read_peer(value: Any) -> PeerId:
    return PeerId.parse(_read_str(value))


def _read_layers(value: Any) -> LayerRange:
    if type(value) is not list or len(value) != 2:
        raise ValueError("is not [start, stop]")
    return LayerRange(_read_int(value[0]), _read_int(value[1]))


def _read_tensor(value: Any) -> tuple[str, tuple[int, ...]]:
    if type(value) is not list or len(value) != 2 or type(value[0]) is not str:
        raise ValueError("is not [dtype, shape]")
    return value[0], _read_items(_read_int, value[1])


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
