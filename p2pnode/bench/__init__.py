"""Measurements: ours, the baseline and the ratio, from one run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2pnode.errors import BadRequest

if TYPE_CHECKING:
    from p2pnode.bench.parts import Setup

NAMES = (
    *("loopback", "resilience", "wan", "throughput", "prefill"),
    *("speculation", "gateway", "wire", "plan"),
)
WHOLE_ONLY = ("loopback", "wire")

Note = Callable[[str], None]


async def run_bench(
    name: str, note: Note, *, is_quick: bool = False, plot: Path | None = None
) -> dict[str, Any]:
    """Run the benchmark of that name: ``{"environment": {...}, "rows": [...]}``.

    note: told in plain words what is going on; is_quick: fewer and smaller rounds; plot: where to
    draw a picture, too. Raises BadRequest for an unknown name, one that has no quick form, or no
    picture.
    """
    if name not in NAMES:
        raise BadRequest(f"no benchmark {name[:40]!r}; there is: {', '.join(NAMES)}")
    if is_quick and name in WHOLE_ONLY:
        raise BadRequest(f"{name} has no quick form; leave out --quick")
    if plot is not None and name != "speculation":
        raise BadRequest(f"{name} has no plot; there is one of speculation")
    if name == "resilience":
        from p2pnode.bench.resilience import resilience

        return await resilience(note, is_quick=is_quick)
    if name == "plan":
        from p2pnode.bench.plan import plan

        return await plan(note, is_quick=is_quick)
    if name == "loopback":
        from p2pnode.bench.loopback import loopback

        return await loopback(note)
    if name == "wire":
        from p2pnode.bench.wire import wire

        return await wire(note)
    return await _in_parts(name, note, is_quick, plot)


async def _in_parts(name: str, note: Note, is_quick: bool, plot: Path | None) -> dict[str, Any]:
    """Benchmarks that are lists of parts."""
    from p2pnode.bench import (
        gateway,
        gateway_doctor,
        gateway_page,
        prefill,
        speculation,
        throughput,
        wan,
    )
    from p2pnode.bench.parts import Setup, measured
    from p2pnode.bench.result import result

    parts = {
        "wan": wan.PARTS,
        "throughput": throughput.PARTS,
        "prefill": prefill.PARTS,
        "speculation": speculation.PARTS,
        "gateway": gateway.PARTS + gateway_page.PARTS + gateway_doctor.PARTS,
    }
    with tempfile.TemporaryDirectory(prefix="p2pnode-bench-") as folder:
        setup = Setup(note=note, folder=Path(folder), is_quick=is_quick)
        if plot is not None:
            await _draw(setup, plot)
        return result(await measured(parts[name], setup))


async def _draw(setup: Setup, plot: Path) -> None:
    from p2pnode.bench.rates import draw

    try:
        await draw(setup, plot)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadRequest(f"cannot write {plot}: {reason}") from None
