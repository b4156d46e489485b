"""What we call ourselves."""

from __future__ import annotations

VERSION = "0.1.0"
SOFTWARE = f"p2pnode/{VERSION}"
