"""How a node tells what happens to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OnEvent = Callable[[str, dict[str, Any]], None]
"""Told what scripts and people may want to know: the event's name and its fields."""
