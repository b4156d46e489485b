"""Reads the JSON files of a model folder, which strangers wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from p2pnode.errors import ModelFilesError

MAX_JSON_BYTES = 64 << 20
"""The largest honest one is the weight index of a mixture of experts: some 10 MB."""


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; raises ModelFilesError when it is missing, corrupted or huge."""
    text = read_text(file)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFilesError(f"{file} is not JSON: {error}; fetch the model again") from None
    if not isinstance(value, dict):
        raise ModelFilesError(f"{file} holds no JSON object; fetch the model again")
    return value


def read_json_if_there(file: Path) -> dict[str, Any]:
    """Like `read_json`, and empty when there is no such file."""
    return read_json(file) if file.exists() else {}


def read_text(file: Path, limit: int = MAX_JSON_BYTES) -> str:
    """A UTF-8 file of at most ``limit`` bytes; raises ModelFilesError."""
    try:
        size = file.stat().st_size
        if size > limit:
            raise ModelFilesError(f"{file} has {size} bytes; more than {limit} is not read")
        return file.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelFilesError(f"cannot read {file}: {reason}") from None
    except UnicodeDecodeError:
        raise ModelFilesError(f"{file} is not UTF-8 text; fetch the model again") from None
