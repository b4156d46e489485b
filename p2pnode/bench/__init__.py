"""Measurements: ours, the baseline and the ratio, from one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from p2pnode.errors import BadRequest

NAMES = ("loopback",)


async def run_bench(name: str, note: Callable[[str], None]) -> dict[str, Any]:
    """Run the benchmark of that name: ``{"environment": {...}, "rows": [...]}``.

    note: told in plain words what is going on. Raises BadRequest for an unknown name.
    """
    if name not in NAMES:
        raise BadRequest(f"no benchmark {name[:40]!r}; there is: {', '.join(NAMES)}")
    from p2pnode.bench.loopback import loopback

    return await loopback(note)
