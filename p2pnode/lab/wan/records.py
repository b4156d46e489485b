"""JSON lines between the lab and its helper processes: one object each, decoded strictly.

A record is a frozen dataclass of plain values, tuples of them, and other such dataclasses; its
class name is the line's ``do``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from p2pnode.errors import BadRequest

MAX_LINE_BYTES = 1 << 20


def encode(record: Any) -> bytes:
    """A record as one line; infinite numbers stay what they are."""
    fields = dataclasses.asdict(record)
    return json.dumps({"do": type(record).__name__, **fields}).encode() + b"\n"


def decode(line: bytes, kinds: Mapping[str, type[Any]]) -> Any:
    """The record of a line; raises BadRequest, which names the field."""
    if len(line) > MAX_LINE_BYTES:
        raise BadRequest(f"a line of {len(line)} bytes")
    try:
        table = json.loads(line)
    except ValueError as error:
        raise BadRequest(f"a line is not JSON: {error}") from None
    kind = kinds.get(str(table.pop("do", ""))) if isinstance(table, dict) else None
    if kind is None:
        raise BadRequest(f"a line does nothing that we know: {', '.join(sorted(kinds))}")
    return _record(table, kind)


def _record(table: dict[str, Any], kind: type[Any]) -> Any:
    hints = get_type_hints(kind)
    for name in table:
        if name not in hints:
            raise BadRequest(f"{kind.__name__} has no {name[:40]!r}")
    values = {name: _value(table[name], hints[name], name) for name in table}
    try:
        return kind(**values)
    except TypeError as error:
        raise BadRequest(f"{kind.__name__}: {error}") from None


def _value(value: Any, hint: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise BadRequest(f"{name} must be an object")
        return _record(value, hint)  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise BadRequest(f"{name} must be a list")
        return tuple(_value(each, get_args(hint)[0], name) for each in value)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise BadRequest(f"{name} must be one of {', '.join(map(str, get_args(hint)))}")
        return value
    accepted = get_args(hint) or (hint,)
    if float in accepted and type(value) is int:
        return float(value)
    if type(value) not in {NoneType if each is None else each for each in accepted}:
        raise BadRequest(f"{name} has the wrong type: {type(value).__name__}")
    return value
