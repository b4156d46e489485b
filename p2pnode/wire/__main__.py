"""Print the table of messages: ``python -m p2pnode.wire``."""

from __future__ import annotations

import sys

from p2pnode.wire import messages, padding, records
from p2pnode.wire.codec import kinds


def table() -> str:
    """One line per kind: its fields, and the first line of its contract."""
    others = (each.__name__.rpartition(".")[2] for each in (padding, records))
    lines = [f"{messages.CHAIN} {messages.CONTROL} {' '.join(others)}"]
    for kind in kinds():
        first = (kind.cls.__doc__ or "").strip().splitlines()[0]
        lines.append(f"{kind.name:13} {', '.join(kind.readers)}\n{'':13} {first}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
