"""Measurements: ours, the baseline and the ratio, from one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from p2pnode.errors import BadRequest

NAMES = ("loopback", "resilience")


async def run_bench(
    name: str, note: Callable[[str], None], *, is_quick: bool = False
) -> dict[str, Any]:
    """Run the benchmark of that name: ``{"environment": {...}, "rows": [...]}``.

    note: told in plain words what is going on; is_quick: fewer and smaller rounds. Raises
    BadRequest for an unknown name, or one that has no quick form.
    """
    if name not in NAMES:
        raise BadRequest(f"no benchmark {name[:40]!r}; there is: {', '.join(NAMES)}")
    if name == "resilience":
        from p2pnode.bench.resilience import resilience

        return await resilience(note, is_quick=is_quick)
    if is_quick:
        raise BadRequest(f"{name} has no quick form; leave out --quick")
    from p2pnode.bench.loopback import loopback

    return await loopback(note)
