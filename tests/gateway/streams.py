"""Reads server-sent events, as a browser does."""

from __future__ import annotations

import json
from typing import Any


def events_of(text: str) -> list[Any]:
    """The data of each event in order; of ``[DONE]`` the text, of an ``error`` event both."""
    events: list[Any] = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if not lines:
            continue
        fields = dict(line.split(": ", 1) for line in lines)
        value = fields["data"] if fields["data"] == "[DONE]" else json.loads(fields["data"])
        events.append((fields["event"], value) if "event" in fields else value)
    return events
