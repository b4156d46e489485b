"""`p2pnode bench resilience`: what happens to the text when peers die, stall, leave or lie.

Each part measures some rows; one that cannot be measured becomes a row that says why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import p2pnode
from p2pnode.bench import resilience_faults as faults
from p2pnode.bench import resilience_load as load
from p2pnode.bench import resilience_simulated as simulated
from p2pnode.bench.resilience_rows import Setup, not_measured
from p2pnode.bench.result import Row, result
from p2pnode.config import home
from p2pnode.errors import P2PNodeError
from p2pnode.lab.backends import choose_lab
from p2pnode.lab.record import current_commit

Part = Callable[[Setup], Awaitable[list[Row]]]

PARTS: tuple[tuple[str, Part], ...] = (
    ("gossip_flood", simulated.flood),
    ("scale_choice_ms", simulated.choice),
    ("cluster", simulated.regions),
    ("dead_announcement", simulated.dead),
    ("sybil_lookup", simulated.sybils),
    ("jitter_50", simulated.jitter),
    ("leave_stall", load.leave),
    ("kill_identical", faults.identical),
    ("kill_stall_standby_ms", faults.stalls),
    ("slow_recovery_steps", faults.slow),
    ("kill_stall_alone_ms", load.alone),
    ("standby_cost", load.cost),
    ("scale_lookup", simulated.large),
    ("soak", load.soak),
)
"""By the row that stands for it when it cannot be measured; cheap ones first."""

MOST_S = {"jitter_50": 240.0}
MOST_OF_A_PART_S = 600.0
"""A part that takes longer is given up, so that the others have their turn."""

Note = Callable[[str], None]


async def resilience(
    note: Note,
    *,
    is_quick: bool = False,
    transport: str = "auto",
    folder: Path | None = None,
    parts: Sequence[tuple[str, Part]] = PARTS,
    num_nodes: int = 1000,
) -> dict[str, Any]:
    """All rows; at most 25 minutes, with ``is_quick`` 8.

    transport: see `choose_lab`; folder: the home with recorded sweeps, None: the usual one
    """
    commit, place = current_commit(Path(p2pnode.__file__).parent), home(folder)
    chosen = choose_lab(transport, place.cache, commit)
    note(chosen.reason)
    setup = Setup(
        note=note,
        cache=place.cache,
        records=place.folder / "lab",
        commit=commit,
        transport=chosen.transport,
        is_quick=is_quick,
        num_nodes=num_nodes,
    )
    rows: list[Row] = []
    with _quiet():
        for name, part in parts:
            note(name)
            rows += await _measured(name, part, setup)
    return result(rows)


async def _measured(name: str, part: Part, setup: Setup) -> list[Row]:
    """Its rows; whatever goes wrong in it is a row."""
    try:
        async with asyncio.timeout(MOST_S.get(name, MOST_OF_A_PART_S)):
            return await part(setup)
    except TimeoutError:
        return [not_measured(name, "it took too long; is this machine busy?")]
    except (P2PNodeError, OSError, ArithmeticError, LookupError, RuntimeError, ValueError) as error:
        return [not_measured(name, f"{type(error).__name__}: {error}")]


@contextmanager
def _quiet() -> Iterator[None]:
    """Say nothing of what is done on purpose."""
    logger = logging.getLogger("p2pnode")
    level = logger.level
    if not logger.isEnabledFor(logging.DEBUG):
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
