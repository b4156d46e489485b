"""`p2pnode bench throughput`: many sessions at once.

- ``wan_8``, ``wan_32``: tokens per second of 8 and 32 sessions together over those of one, on wide
  area lines, where computing takes much less than the way;
- ``cpu_8``: of 8 sessions together over 8 in sequence, on loopback, where computing is all;
- ``growth_8k``, ``batch_knee``: of one device, without a network (`bench.engine`);
- ``hetero_p99``: how evenly tokens come to a crowd on peers of mixed speed (`bench.mixed`).
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

from p2pnode.bench.chains import local_chain
from p2pnode.bench.engine import batch_knee, growth_8k
from p2pnode.bench.mixed import hetero
from p2pnode.bench.models import NUM_LAYERS, make_model, make_wide
from p2pnode.bench.parts import DELAYS_MS, Part, Setup, at_each_delay, least
from p2pnode.bench.result import Row, at_least, figure
from p2pnode.bench.timing import Timing
from p2pnode.bench.wan_chain import Answer, ChainClient, Setting, greedy, wan_chain
from p2pnode.lab.reference import tiny_model
from p2pnode.tasks import Tasks

T = TypeVar("T")

NUM_HOPS = 3
GOALS = {8: 7.5, 32: 24.0}
WAN_TOKENS = 64
QUICK_WAN_TOKENS = 16
CPU_SESSIONS = 8
CPU_TOKENS = 24
QUICK_CPU_TOKENS = 8
PROMPT_TOKENS = 8
GROWTH_SIZES = {"intermediate_size": 1536, "heads": 8, "kv_heads": 4, "head_dim": 64}


async def wan(setup: Setup) -> list[Row]:
    """`wan_8` and `wan_32`."""
    model = await asyncio.to_thread(tiny_model, setup.folder, NUM_HOPS)
    num_tokens = setup.few(WAN_TOKENS, QUICK_WAN_TOKENS)
    gains: dict[int, dict[int, list[float]]] = {num: {} for num in GOALS}
    single: dict[int, float] = {}
    false_alarms = 0
    async with wan_chain(Setting(model=model, num_layers=NUM_HOPS)) as chain:
        client = await chain.client()
        for delay in DELAYS_MS:
            await chain.set_delay(delay)
            await _rate(client, max(GOALS), 8)
            found: dict[int, list[float]] = {num: [] for num in (1, *GOALS)}
            for index in range(setup.num_rounds):
                setup.note(f"{delay} ms: round {index + 1} of {setup.num_rounds}")
                for num, rates in found.items():
                    rate, alarms = await _rate(client, num, num_tokens)
                    rates.append(rate)
                    false_alarms += alarms
            single[delay] = median(found[1])
            for num, by_delay in gains.items():
                pairs = zip(found[num], found[1], strict=True)
                by_delay[delay] = [together / alone for together, alone in pairs]
    rows = [
        row
        for num, goal in GOALS.items()
        for row in at_each_delay(f"wan_{num}", least(goal), gains[num], "x single", single)
    ]
    return [*rows, figure("wan_false_alarms", [float(false_alarms)], "failovers, nobody failed")]


async def _rate(client: ChainClient, num_sessions: int, num_tokens: int) -> tuple[float, int]:
    """Tokens per second of so many sessions together, their prompts not counted; false alarms."""

    async def ask(number: int) -> Answer:
        return await client.ask(greedy(prompt(number), num_tokens))

    answers = await together(ask, num_sessions)
    begins = min(answer.began_s + answer.ttft_s for answer in answers)
    ends = max(answer.began_s + answer.whole_s for answer in answers)
    alarms = sum(answer.failovers for answer in answers)
    return sum(len(answer.gaps_s) for answer in answers) / (ends - begins), alarms


async def together(ask: Callable[[int], Awaitable[T]], num: int) -> list[T]:
    """Ask for 0, 1, 2, ... at once."""
    done: list[T] = []

    async def one(number: int) -> None:
        done.append(await ask(number))

    async with Tasks() as tasks:
        for number in range(num):
            tasks.start(one(number), name=f"session-{number}")
        await tasks.wait()
    return done


def prompt(number: int) -> list[int]:
    """Another one for each session."""
    return [1, *((31 * number + 7 * index) % 500 + 3 for index in range(PROMPT_TOKENS - 1))]


async def cpu(setup: Setup) -> list[Row]:
    """`cpu_8`."""
    num_tokens = setup.few(CPU_TOKENS, QUICK_CPU_TOKENS)
    with tempfile.TemporaryDirectory(prefix="p2pnode-bench-") as name:
        folder = Path(name)
        setup.note("making a random model of 0.73 GB")
        wide = await asyncio.to_thread(make_wide, folder / "wide")
        gains, rates = list[float](), list[float]()
        async with local_chain(folder, str(wide), NUM_LAYERS, NUM_LAYERS, setup.note) as chain:

            async def ask(number: int) -> Timing:
                return await chain.run(prompt(number), num_tokens)

            await ask(0)
            for index in range(setup.num_rounds):
                setup.note(f"8 on loopback: round {index + 1} of {setup.num_rounds}")
                began = time.perf_counter()
                for number in range(CPU_SESSIONS):
                    await ask(number)
                turned = time.perf_counter()
                await together(ask, CPU_SESSIONS)
                alone_s = turned - began
                gains.append(alone_s / (time.perf_counter() - turned))
                rates.append(CPU_SESSIONS * num_tokens / alone_s)
    return [at_least("cpu_8", gains, "x in sequence", 3.0, median(rates))]


async def growth(setup: Setup) -> list[Row]:
    """`growth_8k`; see `bench.engine`."""
    place = setup.folder / "growth"
    await asyncio.to_thread(make_model, place, num_layers=2, hidden_size=512, **GROWTH_SIZES)
    return await asyncio.to_thread(growth_8k, place, setup.note)


async def knee(setup: Setup) -> list[Row]:
    """`batch_knee`; see `bench.engine`."""
    place = await asyncio.to_thread(make_wide, setup.folder / "knee")
    return await asyncio.to_thread(batch_knee, place, setup.note)


PARTS: tuple[tuple[str, Part], ...] = (
    ("wan_8", wan),
    ("cpu_8", cpu),
    ("growth_8k", growth),
    ("batch_knee", knee),
    ("hetero_p99", hetero),
)
