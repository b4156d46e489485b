"""How much has gone over links."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Volume:
    """Bytes of frames, since the beginning."""

    sent: int = 0
    received: int = 0
