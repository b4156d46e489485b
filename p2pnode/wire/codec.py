"""Frozen dataclasses to msgpack headers and back, strictly.

A message is a keyword-only frozen dataclass marked ``@message("kind")``. Its header is one msgpack
map: ``kind`` and every field by name. At most one field is a `Tensor`; the header holds only its
dtype and shape, and the coding where it has one (`wire.coding`); its bytes travel beside the
header and are never copied into msgpack.

Strict means: unknown kind, missing or extra field, wrong type (``True`` is no int), a value out of
range, too long, trailing bytes: `WireError`, naming kind and field. Sizes are checked before
anything of that size is built.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import msgpack

from p2pnode.errors import WireError
from p2pnode.types import DTYPE_BYTES, Tensor
from p2pnode.wire.coding import CODINGS
from p2pnode.wire.fields import Reader, Writer, reader, writer

MAX_HEADER_BYTES = 32 * 1024

T = TypeVar("T")

_EMPTY = memoryview(b"")


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """How one message class is read and written."""

    name: str
    cls: type
    readers: dict[str, Reader]
    writers: tuple[tuple[str, Writer], ...]
    """Of those fields that are not msgpack's values already."""
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
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = [field.name for field in dataclasses.fields(cls)]
    tensors = [field for field in fields if hints[field] in (Tensor, Tensor | None)]
    if name in _KINDS or len(tensors) > 1:
        raise TypeError(f"message {name}: registered twice, or more than one tensor")
    kind = Kind(
        name=name,
        cls=cls,
        readers={field: reader(hints[field]) for field in fields},
        writers=tuple((f, write) for f in fields if (write := writer(hints[f])) is not None),
        tensor=tensors[0] if tensors else None,
    )
    _KINDS[name] = _KIND_OF[cls] = kind


def kinds() -> tuple[Kind, ...]:
    """All registered kinds, for the printed table and the fuzz tests."""
    return tuple(_KINDS.values())


def tensor_of(value: object) -> Tensor | None:
    """The tensor of a message, if it has one."""
    name = _KIND_OF[type(value)].tensor
    tensor: Tensor | None = getattr(value, name) if name else None
    return tensor


def encode(value: object, coding: str = "") -> tuple[bytes, memoryview]:
    """The header of a message, and the bytes of its tensor (empty without one), not yet coded.

    coding: how the tensor's bytes will be coded; empty: not at all
    Raises WireError when the header would be too long.
    """
    kind = _KIND_OF[type(value)]
    header: dict[str, Any] = {"kind": kind.name}
    for name in kind.readers:
        header[name] = getattr(value, name)
    for name, write in kind.writers:
        if header[name] is not None:
            header[name] = write(header[name])
    if coding and kind.tensor:
        header[kind.tensor].append(coding)
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
        described = self._described
        if described is None:
            return 0
        dtype, shape, _ = described
        return int(math.prod(shape)) * DTYPE_BYTES.get(dtype, 0)

    @property
    def coding(self) -> str:
        """The name of the coding; empty when there is none."""
        described = self._described
        return described[2] if described else ""

    @property
    def block_bytes(self) -> int:
        """Plain bytes that a frame stands for; 0 where the coding is not for such a tensor."""
        try:
            return CODINGS[self.coding].block_bytes(*self._layout)
        except ValueError:
            return 0

    def decode_block(self, coded: memoryview, plain: memoryview) -> None:
        """Fill ``plain`` with what the bytes of a frame stand for; raises WireError."""
        try:
            CODINGS[self.coding].decode(coded, plain, *self._layout)
        except ValueError as error:
            raise WireError(f"{self.kind.name}: {error}") from error

    @property
    def _layout(self) -> tuple[str, int]:
        """Dtype, and width of a row."""
        dtype, shape, _ = self._described or ("", (), "")
        return dtype, shape[-1] if shape else 0

    @property
    def _described(self) -> tuple[str, tuple[int, ...], str] | None:
        return self.values[self.kind.tensor] if self.kind.tensor else None

    def finish(self, body: bytes | bytearray | memoryview) -> Any:
        """The message; raises WireError unless the bytes fit the header."""
        kind, values, described = self.kind, self.values, self._described
        if described is None and len(body):
            raise WireError(f"{kind.name}: {len(body)} bytes beside a message without a tensor")
        try:
            if described is not None:
                dtype, shape, _ = described
                values = {**values, kind.tensor or "": Tensor(dtype, shape, body)}
            return kind.cls(**values)
        except ValueError as error:
            raise WireError(f"{kind.name}: {error}") from error


def decode(header: bytes | memoryview, body: bytes | bytearray | memoryview = b"") -> Any:
    """The message of a header and the plain bytes beside it; raises WireError."""
    pending = decode_header(header)
    if pending.coding:
        raise WireError(f"{pending.kind.name}: coded outside of frames")
    return pending.finish(body)


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
