"""What a hop costs beside its compute: chains with next to none, in turns with plain sockets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from p2pnode.bench.chains import PROMPT, Note, local_chain
from p2pnode.bench.models import HIDDEN_SIZE, NUM_LAYERS
from p2pnode.bench.relay import relays
from p2pnode.bench.result import Row, at_most, figure
from p2pnode.bench.timing import Timing

ROUNDS = 5
NUM_HOPS = 3
NUM_TOKENS = 300
FRAME_BYTES = HIDDEN_SIZE * 4
"""Of a hidden state."""


async def overhead(folder: Path, thin: Path, note: Note) -> list[Row]:
    """``hop_overhead_ms_p50`` and ``_p99`` of a chain of three, and the former of shorter ones.

    The baseline is as many plain processes on plain sockets, which pass frames of the same size.
    """
    ours: dict[float, list[float]] = {0.5: [], 0.99: []}
    floor: dict[float, list[float]] = {0.5: [], 0.99: []}
    async with (
        local_chain(folder, str(thin), NUM_LAYERS, NUM_HOPS, note) as chain,
        relays(NUM_HOPS, FRAME_BYTES) as plain,
    ):
        await chain.run(PROMPT, NUM_TOKENS)
        await plain.run(NUM_TOKENS)
        for index in range(ROUNDS):
            note(f"overhead per hop: round {index + 1} of {ROUNDS}")
            gaps_ms = _per_hop_ms(await chain.run(PROMPT, NUM_TOKENS), NUM_HOPS)
            plain_ms = [each / NUM_HOPS * 1000 for each in await plain.run(NUM_TOKENS)]
            for share in ours:
                ours[share].append(quantile(gaps_ms, share))
                floor[share].append(quantile(plain_ms, share))
    shorter = {hops: await _alone(folder, thin, hops, note) for hops in (1, 2)}
    p50, p99 = median(floor[0.5]), median(floor[0.99])
    return [
        at_most("hop_overhead_ms_p50", ours[0.5], "ms", 0.8, p50),
        at_most("hop_overhead_ms_p99", ours[0.99], "ms", max(3.0, 2 * p99), p99),
        *(figure(f"hop_overhead_ms_p50_chain{hops}", each, "ms") for hops, each in shorter.items()),
        figure("socket_ms_p50", floor[0.5], "ms"),
        figure("socket_ms_p99", floor[0.99], "ms"),
    ]


async def _alone(folder: Path, thin: Path, hops: int, note: Note) -> list[float]:
    """Medians of a shorter chain; the idle nodes of another one would cost this one something."""
    async with local_chain(folder, str(thin), NUM_LAYERS, hops, note) as chain:
        await chain.run(PROMPT, NUM_TOKENS)
        timings = [await chain.run(PROMPT, NUM_TOKENS) for _ in range(ROUNDS)]
    return [quantile(_per_hop_ms(timing, hops), 0.5) for timing in timings]


def quantile(values: Sequence[float], share: float) -> float:
    """The value that so many of all are not above."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _per_hop_ms(timing: Timing, hops: int) -> list[float]:
    """Of each token, what is left of its time without the compute."""
    return [(gap - timing.compute_s) / hops * 1000 for gap in timing.gaps_s]
