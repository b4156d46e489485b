"""Tool calls: what a model writes when it wants a function called, and how to tell it from text.

Templates teach models different forms; which one, their own words tell. An answer that is not
exactly of the form stays text: nothing is guessed.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from p2pnode.model.chat import ChatTemplate

OPEN, CLOSE = "<tool_call>", "</tool_call>"
MISTRAL = "[TOOL_CALLS]"
PYTHON = "<|python_tag|>"
MAX_CALLS = 128


class ToolStyle(StrEnum):
    """How a model writes its calls."""

    TAGS = "tags"
    """``<tool_call>{"name": ..., "arguments": {...}}</tool_call>`` (Hermes, Qwen)."""
    LIST = "list"
    """``[TOOL_CALLS][{"name": ..., "arguments": {...}}]`` (Mistral)."""
    OBJECT = "object"
    """The whole answer is ``{"name": ..., "parameters": {...}}`` (Llama 3)."""
    UNKNOWN = "unknown"
    """The template tells the model of tools, but in a form that is not read here."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call that a model has written."""

    name: str
    arguments: str
    """A JSON object, as text."""
    id: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}")


def style_of(template: ChatTemplate) -> ToolStyle:
    """What a template's own text says of how calls look."""
    source = template.source
    if OPEN in source and ("arguments" in source):
        return ToolStyle.TAGS
    if MISTRAL in source:
        return ToolStyle.LIST
    if PYTHON in source or '"parameters"' in source:
        return ToolStyle.OBJECT
    return ToolStyle.UNKNOWN


class ToolReader:
    """Takes an answer piece by piece: lets text through, and holds back what may be calls."""

    def __init__(self, style: ToolStyle) -> None:
        self._style = style
        self._held = ""
        self._is_text = style is ToolStyle.UNKNOWN
        """Whether all that comes is text."""

    def push(self, piece: str) -> str:
        """More of the answer; returns what is text for certain."""
        self._held += piece
        keep = 0 if self._is_text else self._num_held()
        text = self._held[: len(self._held) - keep]
        self._held = self._held[len(text) :]
        return text

    def finish(self) -> tuple[str, tuple[Call, ...]]:
        """The answer is complete: the rest of the text, or the calls."""
        calls = read_calls(self._style, self._held)
        return ("", calls) if calls else (self._held, ())

    def _num_held(self) -> int:
        """How many characters at the end may belong to a call."""
        held = self._held
        if self._style is ToolStyle.TAGS:
            at = held.find(OPEN)
            return len(held) - at if at >= 0 else _overlap(held, OPEN)
        begun = held.lstrip()
        if not begun or any(_agree(begun, start) for start in _STARTS[self._style]):
            return len(held)
        self._is_text = True  # calls of these styles begin an answer
        return 0


_STARTS = {ToolStyle.LIST: (MISTRAL, "["), ToolStyle.OBJECT: (PYTHON, "{")}


def _agree(text: str, start: str) -> bool:
    """Whether the text begins so, as far as there is text."""
    return text.startswith(start) or start.startswith(text)


def _overlap(text: str, start: str) -> int:
    longest = min(len(text), len(start) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(start[:n])), 0)


def read_calls(style: ToolStyle, text: str) -> tuple[Call, ...]:
    """The calls that a text consists of; none when it is not exactly of that form."""
    match style:
        case ToolStyle.TAGS:
            pieces = text.strip().removeprefix(OPEN).split(OPEN)
            values = [_json(piece.strip().removesuffix(CLOSE)) for piece in pieces]
        case ToolStyle.LIST:
            read = _json(text.strip().removeprefix(MISTRAL))
            values = read if isinstance(read, list) else [read]
        case ToolStyle.OBJECT:
            values = [_json(text.strip().removeprefix(PYTHON))]
        case _:
            return ()
    calls = [_call(value) for value in values[: MAX_CALLS + 1]]
    if len(calls) > MAX_CALLS:
        return ()
    complete = tuple(call for call in calls if call is not None)
    return complete if len(complete) == len(calls) else ()


def _call(value: Any) -> Call | None:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):
        arguments = _json(arguments)
    if not value["name"] or not isinstance(arguments, dict):
        return None
    return Call(value["name"], json.dumps(arguments, ensure_ascii=False))


def _json(text: str) -> Any:
    """The value; None for what is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
