"""Reading TOML strictly: each key once, of its type, in its limits; else one line that says what.

`Table` hands out the keys of one table; `Table.done` complains about those that nobody asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from p2pnode.errors import BadRequest
from p2pnode.log import escape

MAX_FILE_BYTES = 64 << 10
MAX_TEXT_CHARS = 4096
NAME = re.compile(r"[a-z][a-z0-9-]{0,23}")
NAME_REMEDY = "write small letters, digits and dashes, at most 24, a letter first"


def read_text(file: Path) -> str:
    """A small UTF-8 file; raises BadRequest."""
    name = escape(str(file))
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
        text = content.decode()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise BadRequest(f"{name} cannot be read: {reason}; name a scenario file") from None
    if len(content) > MAX_FILE_BYTES:
        raise BadRequest(f"{name} is longer than {MAX_FILE_BYTES} bytes; scenarios are short")
    return text


class Table:
    """One table of a file. Every method raises BadRequest with file, key and remedy."""

    def __init__(self, values: Mapping[str, Any], source: str, path: str = "") -> None:
        self._values = values
        self._source = source
        self._path = path
        self._asked: list[str] = []

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        if key not in self._asked:
            self._asked.append(key)
        return key in self._values

    def text(self, key: str, default: str | None = None) -> str:
        """A string that is not empty; without a default the key must be there."""
        value = self._get(key, default)
        if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT_CHARS:
            raise self.wrong(key, f"write a text of 1 to {MAX_TEXT_CHARS} characters")
        return value

    def name(self, key: str) -> str:
        """Small letters, digits and dashes, beginning with a letter: also the name of a file."""
        value = self.text(key)
        if not NAME.fullmatch(value):
            raise self.wrong(key, NAME_REMEDY)
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """true or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "write true or false")
        return value

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number from low to high."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(key, f"write a whole number from {low} to {high}")
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        """A number from low to high; infinite only as a default."""
        value = self._get(key, default)
        if key not in self._values:
            return float(value)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not low <= value <= high:
            raise self.wrong(key, f"write a number from {low:g} to {high:g}")
        return float(value)

    def choice(self, key: str, known: tuple[str, ...], default: str | None = None) -> str:
        """One of some words."""
        value = self._get(key, default)
        if value not in known:
            raise self.wrong(key, f"write one of {', '.join(known)}")
        return str(value)

    def texts(self, key: str, num: int) -> tuple[str, ...]:
        """An array of so many strings."""
        value = self._get(key, None)
        is_list = isinstance(value, list) and len(value) == num
        if not is_list or not all(isinstance(each, str) for each in value):
            raise self.wrong(key, f"write {num} names, e.g. {key} = {['a', 'b', 'c'][:num]}")
        return tuple(value)

    def table(self, key: str) -> Table:
        """A table within; empty when the key is not there."""
        value = self._get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, f"write it as a table [{self._name(key)}]")
        return Table(value, self._source, self._name(key))

    def tables(self, key: str, limit: int) -> list[Table]:
        """An array of tables within, at most so many."""
        value = self._get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise self.wrong(key, f"write it as tables [[{self._name(key)}]]")
        if len(value) > limit:
            raise self.wrong(key, f"write at most {limit} of them")
        return [
            Table(each, self._source, f"{self._name(key)}[{number}]")
            for number, each in enumerate(value, start=1)
        ]

    def done(self) -> None:
        """Nothing else may be in the table."""
        unknown = [key for key in self._values if key not in self._asked]
        if unknown:
            raise self.wrong(
                unknown[0], f"the keys here are {', '.join(self._asked)}", " is unknown"
            )

    def wrong(self, key: str, remedy: str, what: str = "") -> BadRequest:
        """The error about a key, to be raised."""
        value = self._values.get(key)
        if not what and value is None:
            what = " is missing"
        elif not what and isinstance(value, str | bool | int | float):
            what = f" = {escape(repr(value), 60)}"
        return BadRequest(f"{self._source}: {escape(self._name(key), 80)}{what}: {remedy}")

    def _get(self, key: str, default: Any) -> Any:
        if not self.has(key) and default is None:
            raise self.wrong(key, "it is required")
        return self._values.get(key, default)

    def _name(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key
