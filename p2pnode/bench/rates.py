"""The plot of `p2pnode bench speculation`: tokens per second against the round trip.

Plain decoding, the same where the last hop feeds the first one (the ring), synchronous windows (the
best of some) and asynchronous ones, each beside its bound, with an oracle drafter of 5 ms per token
whose guesses are right in about 4 of 5 cases; the bounds count with as many as were right.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from statistics import median

from p2pnode.bench.bounds import best_asynchronous, best_synchronous
from p2pnode.bench.parts import Setup
from p2pnode.bench.plot import Axes, Series, svg
from p2pnode.bench.speculation import (
    NUM_HOPS,
    SIZING_TOKENS,
    SIZING_WINDOW,
    SLOW_DRAFT_MS,
    SLOW_SHARE,
    Rig,
    costs_of,
    rig,
    tiny_setting,
)
from p2pnode.bench.wan_chain import wan_chain

DELAYS_MS = (2, 5, 10, 20, 40, 80)
QUICK_DELAYS_MS = (5, 20)
WINDOWS = (2, 4, 8, 12)
"""The best synchronous one is longer where the round trip is."""
TOKENS = 120
PLAIN_TOKENS = 24
ROUNDS = 3
KINDS = ("plain", "ring", "synchronous", "asynchronous")


async def draw(setup: Setup, file: Path) -> None:
    """Measure, and write the picture; raises NoNamespaces, and OSError for the file."""
    measured: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    bounds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    async with wan_chain(await tiny_setting(setup)) as chain:
        used = await rig(setup, chain, TOKENS)
        ring = await used.with_ring()
        for delay in QUICK_DELAYS_MS if setup.is_quick else DELAYS_MS:
            await chain.set_delay(delay)
            for each in (used, ring):
                await each.plain(8)
            setup.note(f"plot: {delay} ms")
            found, limits = await _rates(setup, used, ring, delay)
            for kind in KINDS:
                measured[kind].append((2.0 * delay, found[kind]))
                bounds[kind].append((2.0 * delay, limits[kind]))
    axes = Axes(
        title=f"{NUM_HOPS} hops, some {SLOW_SHARE:.0%} of guesses right, {SLOW_DRAFT_MS:g} ms each",
        x="round trip between any two machines (ms)",
        y="tokens/s",
    )
    lines = [
        Series(name=f"{kind}{name}", points=points[kind], colour=index, is_bound=bool(name))
        for index, kind in enumerate(KINDS)
        for name, points in (("", measured), (", bound", bounds))
    ]
    await asyncio.to_thread(_write, file, svg(axes, lines))


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


async def _rates(
    setup: Setup, used: Rig, ring: Rig, delay_ms: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Tokens per second of each kind, and its bound."""
    rounds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    limits: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for index in range(setup.few(ROUNDS, 1)):
        plain, handed = await used.plain(PLAIN_TOKENS), await ring.plain(PLAIN_TOKENS)
        larger = await used.guessed(SIZING_TOKENS, 1.0, token_ms=0.0, window=SIZING_WINDOW)
        costs, draft_s = costs_of(plain, larger, delay_ms), SLOW_DRAFT_MS / 1e3
        flowing, *waiting = [
            await used.guessed(
                TOKENS, SLOW_SHARE, token_ms=SLOW_DRAFT_MS, window=window, seed=index
            )
            for window in (0, *WINDOWS)
        ]
        best = max(waiting, key=lambda answer: answer.tokens_per_s)
        found = {"plain": plain, "ring": handed, "synchronous": best, "asynchronous": flowing}
        for kind, answer in found.items():
            rounds[kind].append(answer.tokens_per_s)
        # A bound without what software costs: nobody's implementation counts in it.
        ideal = replace(costs, overhead_s=0.0)
        limits["plain"].append(1.0 / ideal.loop_s())
        limits["ring"].append(1.0 / (ideal.loop_s() - ideal.delay_s))
        limits["asynchronous"].append(best_asynchronous(ideal, flowing.acceptance, draft_s)[0])
        limits["synchronous"].append(best_synchronous(ideal, best.acceptance, draft_s)[0])
    return (
        {kind: median(values) for kind, values in rounds.items()},
        {kind: median(values) for kind, values in limits.items()},
    )
