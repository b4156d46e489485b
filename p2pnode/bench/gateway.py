"""`p2pnode bench gateway`: what HTTP costs over the library, for the same client and chain.

One node process with the built-in model. A round asks the same question twice: through the
library, and over a socket from the gateway in front of the same client. The reader is in this
process, so its own work counts as the gateway's.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import psutil

from p2pnode.bench.chains import Chain, local_chain
from p2pnode.bench.http import asked
from p2pnode.bench.http_fuzz import can_fuzz, fuzz
from p2pnode.bench.parts import Part, Setup
from p2pnode.bench.result import Row, at_most, figure
from p2pnode.bench.strangers import strangers
from p2pnode.bench.timing import Timing
from p2pnode.client.client import Client
from p2pnode.client.events import Token
from p2pnode.gateway.app import make_app
from p2pnode.gateway.gateway import Gateway
from p2pnode.gateway.server import listening
from p2pnode.gateway.settings import GatewaySettings
from p2pnode.gateway.sse import EventStream, comment

NUM_LAYERS = 27
PROMPT = "Once upon a time, there was a little girl who"
NUM_TOKENS = 24
ROUNDS, QUICK_ROUNDS = 20, 4
NUM_IDLE = 200
SETTLE_S = 1.0
"""Until all streams are open and buffers have their size."""
FUZZ_EXAMPLES = 60
IDLE_PATH = "/v1/idle"
"""A stream that says nothing, as one whose answer takes long."""


@asynccontextmanager
async def _served(setup: Setup, name: str) -> AsyncIterator[tuple[Chain, str]]:
    """A chain with a folder of that name, and the URL of a gateway in front of its client."""
    folder = setup.folder / name
    folder.mkdir()
    async with local_chain(folder, None, NUM_LAYERS, 1, setup.note) as chain:
        settings = GatewaySettings(requests_per_minute=1_000_000, concurrent_requests=1000)
        app = make_app(Gateway(settings, chain.client))
        app.add_route(IDLE_PATH, _idle)
        async with listening(app, "127.0.0.1", 0) as url:
            yield chain, url


async def _idle(request: Any) -> EventStream:
    return EventStream(_nothing(), ping_interval_s=15.0, send_timeout_s=30.0)


async def _nothing() -> AsyncGenerator[bytes, None]:
    yield comment("idle")
    await asyncio.Event().wait()


async def over_library(setup: Setup) -> list[Row]:
    """`gateway_ttft_ms` and `gateway_token_ms`: medians of the differences within rounds."""
    ours: list[Timing] = []
    theirs: list[Timing] = []
    num_rounds = setup.few(ROUNDS, QUICK_ROUNDS)
    async with _served(setup, "over") as (chain, url):
        body = {"model": chain.client.model.spec.name, "prompt": PROMPT, "temperature": 0}
        body |= {"max_tokens": NUM_TOKENS, "stream": True}
        for index in range(num_rounds + 1):
            setup.note(f"over the library: round {index} of {num_rounds}")
            asks = [(ours, _timed(url, body)), (theirs, _library(chain.client))]
            for kept, ask in asks if index % 2 else reversed(asks):
                kept.append(await ask)
    pairs = list(zip(ours, theirs, strict=True))[1:]  # the first one warms up
    first = [(a.ttft_s - b.ttft_s) * 1e3 for a, b in pairs]
    each = [(a.token_s - b.token_s) * 1e3 for a, b in pairs]
    return [
        at_most("gateway_ttft_ms", first, "ms", 3.0, median(b.ttft_s for _, b in pairs) * 1e3),
        at_most("gateway_token_ms", each, "ms", 0.3, median(b.token_s for _, b in pairs) * 1e3),
    ]


async def _library(client: Client) -> Timing:
    """When each token of the same answer came."""
    began = time.perf_counter()
    events = client.stream(PROMPT, max_tokens=NUM_TOKENS)
    at = [time.perf_counter() async for event in events if isinstance(event, Token)]
    return Timing.of(began, at)


async def _timed(url: str, body: dict[str, Any]) -> Timing:
    """When each piece of a streamed answer came."""
    began = time.perf_counter()
    reader, writer = await asked(url, "POST /v1/completions", json.dumps(body).encode())
    at = [
        time.perf_counter()
        async for line in reader
        if line.startswith(b"data: {") and b'"finish_reason":null' in line
    ]
    writer.close()
    return Timing.of(began, at, 0.0)


async def idle_streams(setup: Setup) -> list[Row]:
    """`idle_sse_mb_200`: of this process, both ends of each connection included."""
    process = psutil.Process()
    async with _served(setup, "idle") as (_, url), AsyncExitStack() as stack:
        setup.note(f"{NUM_IDLE} idle streams")
        await _open_idle(url, stack)
        before = process.memory_info().rss
        for _ in range(NUM_IDLE):
            await _open_idle(url, stack)
        await asyncio.sleep(SETTLE_S)
        grown = (process.memory_info().rss - before) / 1e6
    return [at_most(f"idle_sse_mb_{NUM_IDLE}", [grown], "MB", 50.0)]


async def _open_idle(url: str, stack: AsyncExitStack) -> None:
    reader, writer = await asked(url, f"GET {IDLE_PATH}")
    stack.callback(writer.close)
    while b": idle" not in await reader.readline():
        pass


async def fuzzed(setup: Setup) -> list[Row]:
    """`schemathesis`: server errors among all answers."""
    if not can_fuzz():
        row = figure("schemathesis", [0.0], "server errors")
        return [replace(row, value=None, spread="not installed: pip install 'p2pnode[dev]'")]
    errors, num_asked = 0, 0
    async with _served(setup, "fuzz") as (chain, url):
        for is_valid in (True, False):
            setup.note(f"schemathesis, {'valid' if is_valid else 'invalid'} requests")
            name, loop = chain.client.model.spec.name, asyncio.get_running_loop()
            examples = FUZZ_EXAMPLES // (4 if setup.is_quick else 1)
            ask = partial(fuzz, url, name, is_valid=is_valid, examples=examples)
            statuses = await loop.run_in_executor(None, ask)
            errors += sum(status >= 500 for status in statuses)
            num_asked += len(statuses)
    row = at_most("schemathesis", [float(errors)], "server errors", 0.0)
    return [replace(row, spread=f"of {num_asked} requests")]


PARTS: tuple[tuple[str, Part], ...] = (
    ("gateway_ttft_ms", over_library),
    ("idle_sse_mb_200", idle_streams),
    ("schemathesis", fuzzed),
    ("strangers_in", strangers),
)
