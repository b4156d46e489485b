"""JSON as the gateway writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def to_json(value: Mapping[str, Any]) -> bytes:
    """Compact, in UTF-8; what generated text has of lone surrogates becomes ``?``."""
    return _ENCODER.encode(value).encode("utf-8", "replace")
