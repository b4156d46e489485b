"""`p2pnode bench wan`: single streams over emulated wide area lines, beside plain sockets.

- ``plain_over_floor``: time per token of plain decoding over that of plain sockets on the same
  lines (`lab.wan.floor`) plus the hops' compute;
- ``direct_over_mediated``: tokens per second when hops send to each other, over those when each
  answers the client, which carries the step on;
- ``ring_over_plain``: tokens per second when the last hop hands each token to the first one, over
  those when its client does; ``ring_over_bound``: its time per token over three quarters of the
  plain sockets', plus the hops' compute;
- ``hops_1_to_8``: as the first, for chains of one hop to eight; the worst of them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from p2pnode.bench.models import HIDDEN_SIZE, make_thin
from p2pnode.bench.parts import DELAYS_MS, Part, Setup, at_each_delay, least, most
from p2pnode.bench.resilience_rows import with_remark
from p2pnode.bench.result import Row, figure
from p2pnode.bench.wan_chain import ChainClient, Floor, Setting, WanChain, greedy, wan_chain
from p2pnode.lab.wan.worker import Generate

PROMPT = (1, 403, 407, 261)
NUM_HOPS = 3
MOST_HOPS = 8
QUICK_HOPS = (1, 4, 8)
HIDDEN_BYTES = 4 * HIDDEN_SIZE
TOKENS = 32
QUICK_TOKENS = 12
WARM_TOKENS = 24
MOST_COMPUTE_MS = 10.0


@dataclass(slots=True, eq=False)
class Ways:
    """What rounds have given at one delay: of chains that differ in who feeds whom."""

    over_floor: list[float] = field(default_factory=list)
    over_mediated: list[float] = field(default_factory=list)
    ring_over_plain: list[float] = field(default_factory=list)
    ring_over_bound: list[float] = field(default_factory=list)
    floor_ms: list[float] = field(default_factory=list)
    mediated_rates: list[float] = field(default_factory=list)
    compute_ms: list[float] = field(default_factory=list)

    async def round(
        self,
        request: Generate,
        floor: Floor,
        *,
        direct: ChainClient,
        mediated: ChainClient,
        ring: ChainClient,
    ) -> None:
        """Everything once, in turns."""
        loop_s = await floor.loop_s(request.max_tokens)
        plain, carried = await direct.ask(request), await mediated.ask(request)
        handed = await ring.ask(request)
        self.over_floor.append(plain.token_s / (loop_s + plain.compute_s))
        self.over_mediated.append(carried.token_s / plain.token_s)
        self.ring_over_plain.append(plain.token_s / handed.token_s)
        bound_s = loop_s * NUM_HOPS / (NUM_HOPS + 1) + handed.compute_s
        self.ring_over_bound.append(handed.token_s / bound_s)
        self.floor_ms.append(1e3 * loop_s)
        self.mediated_rates.append(1 / carried.token_s)
        self.compute_ms.append(1e3 * plain.compute_s)


async def ways(setup: Setup) -> list[Row]:
    """`plain_over_floor`, `direct_over_mediated` and the ring's rows."""
    model = await _thin(setup, NUM_HOPS)
    found = {delay: Ways() for delay in DELAYS_MS}
    async with wan_chain(Setting(model=model, num_layers=NUM_HOPS)) as chain:
        clients = {
            "direct": await chain.client(),
            "mediated": await chain.client(is_mediated=True),
            "ring": await chain.client(has_ring=True),
        }
        floor = await chain.floor(HIDDEN_BYTES)
        request = greedy(PROMPT, setup.few(TOKENS, QUICK_TOKENS))
        for delay, each in found.items():
            await _warm(chain, delay, *clients.values())
            for index in range(setup.num_rounds):
                setup.note(f"{delay} ms: round {index + 1} of {setup.num_rounds}")
                await each.round(request, floor, **clients)
    return _ways_rows(found)


def _ways_rows(found: dict[int, Ways]) -> list[Row]:
    floors = {delay: median(each.floor_ms) for delay, each in found.items()}
    rates = {delay: median(each.mediated_rates) for delay, each in found.items()}
    computes = [ms for each in found.values() for ms in each.compute_ms]
    compute = figure("wan_compute_ms", computes, "ms per token, all hops")
    if compute.value is not None and compute.value > MOST_COMPUTE_MS:
        compute = with_remark(compute, f"more than {MOST_COMPUTE_MS:g}: is this machine busy?")
    rows: list[Row] = []
    for metric, goal, values, baselines in (
        ("plain_over_floor", most(1.08), {d: w.over_floor for d, w in found.items()}, floors),
        ("direct_over_mediated", least(1.4), {d: w.over_mediated for d, w in found.items()}, rates),
        ("ring_over_plain", least(1.0), {d: w.ring_over_plain for d, w in found.items()}, {}),
        ("ring_over_bound", most(1.10), {d: w.ring_over_bound for d, w in found.items()}, floors),
    ):
        rows += at_each_delay(metric, goal, values, "ratio", baselines)
    return [*rows, compute]


async def lengths(setup: Setup) -> list[Row]:
    """`hops_1_to_8`."""
    model = await _thin(setup, MOST_HOPS)
    ratios: dict[int, dict[int, list[float]]] = {delay: {} for delay in DELAYS_MS}
    plain_ms: dict[int, dict[int, list[float]]] = {delay: {} for delay in DELAYS_MS}
    for num_hops in QUICK_HOPS if setup.is_quick else range(1, MOST_HOPS + 1):
        setup.note(f"a chain of {num_hops}")
        setting = Setting(model=model, num_layers=MOST_HOPS, num_hops=num_hops)
        async with wan_chain(setting) as chain:
            client, floor = await chain.client(), await chain.floor(HIDDEN_BYTES)
            for delay in DELAYS_MS:
                await _warm(chain, delay, client)
                found = [await _one(setup, client, floor) for _ in range(setup.num_rounds)]
                ratios[delay][num_hops] = [ratio for ratio, _ in found]
                plain_ms[delay][num_hops] = [ms for _, ms in found]
    # The longest chain is not always the worst one.
    worst = {delay: max(each.values(), key=median) for delay, each in ratios.items()}
    rows = at_each_delay("hops_1_to_8", most(1.10), worst, "ratio", {})
    for delay, by_length in ratios.items():
        for num_hops, each in by_length.items():
            took_ms = median(plain_ms[delay][num_hops])
            row = figure(f"hops_{num_hops}_over_floor_{delay}ms", each, "ratio")
            rows.append(with_remark(row, f"{took_ms:.1f} ms per token"))
    return rows


async def _one(setup: Setup, client: ChainClient, floor: Floor) -> tuple[float, float]:
    """Time per token over the floor's, and in milliseconds."""
    num_tokens = setup.few(TOKENS, QUICK_TOKENS)
    loop_s = await floor.loop_s(num_tokens)
    plain = await client.ask(greedy(PROMPT, num_tokens))
    return plain.token_s / (loop_s + plain.compute_s), 1e3 * plain.token_s


async def _warm(chain: WanChain, delay: int, *clients: ChainClient) -> None:
    """Connections are made, and pauses are known."""
    await chain.set_delay(delay)
    for client in clients:
        await client.ask(greedy(PROMPT, WARM_TOKENS))


async def _thin(setup: Setup, num_layers: int) -> Path:
    place = setup.folder / f"thin-{num_layers}"
    return await asyncio.to_thread(make_thin, place, num_layers)


PARTS: tuple[tuple[str, Part], ...] = (("plain_over_floor", ways), ("hops_1_to_8", lengths))
