"""The status page's part of `p2pnode bench gateway`: how soon it is told of a death, and what those
who look at it cost. The browser's own work, some milliseconds, is left out."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import psutil

from p2pnode.bench.chains import Chain, local_chain
from p2pnode.bench.http import asked
from p2pnode.bench.parts import Part, Setup
from p2pnode.bench.result import Row, at_most
from p2pnode.gateway.app import make_app
from p2pnode.gateway.feed import Feed, GatewaySource
from p2pnode.gateway.gateway import Gateway
from p2pnode.gateway.server import listening
from p2pnode.gateway.settings import GatewaySettings
from p2pnode.tasks import Tasks

NUM_LAYERS = 27
NUM_NODES = 4
NUM_VIEWERS = 200
SETTLE_S = 3.0
Peers = dict[str, dict[str, Any]]
EVENTS = "GET /swarm/events"


@asynccontextmanager
async def _page(setup: Setup, name: str) -> AsyncIterator[tuple[Chain, str]]:
    """A chain with a folder of that name, and the URL of a page that shows it."""
    folder = setup.folder / name
    folder.mkdir()
    async with (
        local_chain(folder, None, NUM_LAYERS, NUM_NODES, setup.note) as chain,
        Tasks() as tasks,
    ):
        gateway = Gateway(GatewaySettings(), chain.client)
        feed = Feed(GatewaySource(gateway))
        tasks.start(feed.run(), name="feed")
        async with listening(make_app(gateway, feed), "127.0.0.1", 0) as url:
            yield chain, url


async def deaths(setup: Setup) -> list[Row]:
    """`page_update_s`: from SIGKILL of a node to the event that says so, at a viewer."""
    seconds: list[float] = []
    async with _page(setup, "deaths") as (chain, url):
        reader, writer = await asked(url, EVENTS)
        await _until(reader, _are_in_touch)
        for node in chain.nodes[1:]:
            dead, began = node.peer, time.perf_counter()
            setup.note(f"killing {dead}")
            node.process.kill()
            await _until(reader, partial(_is_gone, dead or ""))
            seconds.append(time.perf_counter() - began)
        writer.close()
    return [at_most("page_update_s", seconds, "s", 2.0)]


def _are_in_touch(peers: Peers) -> bool:
    """Whether all nodes are known and have been pinged."""
    return len(peers) == NUM_NODES and all(p["health"] and p["rtt_s"] for p in peers.values())


def _is_gone(name: str, peers: Peers) -> bool:
    """Whether that one is not shown as alive."""
    return name not in peers or bool(peers[name]["health"]["liveness"] != "alive")


async def _until(reader: asyncio.StreamReader, holds: Callable[[Peers], bool]) -> None:
    """Read until that holds of the peers, by their id; all of them are in each event."""
    async for line in reader:
        if not line.startswith(b"data: {") or b'"peers":' not in line:
            continue
        peers = {peer["peer"]: peer for peer in json.loads(line[6:])["peers"]}
        if holds(peers):
            return


async def viewers(setup: Setup) -> list[Row]:
    """`page_viewers_mb_200` and `page_viewers_cpu_200`: of this process, both ends included."""
    process = psutil.Process()
    async with _page(setup, "viewers") as (_, url), Tasks() as tasks:
        setup.note(f"{NUM_VIEWERS} viewers")
        tasks.start(_view(url), name="viewer")
        await asyncio.sleep(SETTLE_S)
        before, idle = process.memory_info().rss, await _busy_share(process)
        for _ in range(NUM_VIEWERS):
            tasks.start(_view(url), name="viewer")
        await asyncio.sleep(SETTLE_S)
        busy = await _busy_share(process)
        grown = (process.memory_info().rss - before) / 1e6
    return [
        at_most(f"page_viewers_mb_{NUM_VIEWERS}", [grown], "MB", 50.0),
        at_most(f"page_viewers_cpu_{NUM_VIEWERS}", [busy - idle], "cores", 0.25, idle),
    ]


async def _busy_share(process: psutil.Process) -> float:
    """Of one core, over some seconds."""
    began, at = sum(process.cpu_times()[:2]), time.perf_counter()
    await asyncio.sleep(SETTLE_S)
    return float((sum(process.cpu_times()[:2]) - began) / (time.perf_counter() - at))


async def _view(url: str) -> None:
    reader, writer = await asked(url, EVENTS)
    try:
        while await reader.read(1 << 16):
            pass
    finally:
        writer.close()


PARTS: tuple[tuple[str, Part], ...] = (("page_update_s", deaths), ("page_viewers", viewers))
