"""Rows of a benchmark beside those of an earlier run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from p2pnode.errors import BadRequest
from p2pnode.log import escape

MAX_FILE_BYTES = 4 << 20


def read_earlier(file: Path) -> dict[str, float]:
    """The values of a run by their metric, from what ``--json`` printed; raises BadRequest."""
    name = escape(str(file))
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_FILE_BYTES + 1).decode()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise BadRequest(f"cannot compare with {name}: {reason}") from None
    if len(text) > MAX_FILE_BYTES:
        raise BadRequest(f"cannot compare with {name}: it is longer than {MAX_FILE_BYTES} bytes")
    for line in reversed(text.splitlines()):
        rows = _rows(line)
        if rows is not None:
            return rows
    raise BadRequest(f"{name} has no result; write one with: p2pnode bench NAME --json > FILE")


def change(row: Mapping[str, Any], earlier: Mapping[str, float]) -> tuple[float | None, str]:
    """The earlier value of a row, and by how much it has changed since."""
    before, now = earlier.get(row["metric"]), row["value"]
    if before is None:
        return None, "new"
    if now is None:
        return before, "not measured"
    return before, f"{100 * (now / before - 1):+.1f} %" if before else f"{now - before:+.4g}"


def _rows(line: str) -> dict[str, float] | None:
    """What a line has of values; None when it is no result."""
    try:
        result = json.loads(line)
    except (ValueError, RecursionError):
        return None
    rows = result.get("rows") if isinstance(result, dict) else None
    if not isinstance(rows, list):
        return None
    return {
        str(row["metric"]): float(row["value"])
        for row in rows
        if isinstance(row, dict)
        and isinstance(row.get("metric"), str)
        and isinstance(row.get("value"), int | float)
    }
