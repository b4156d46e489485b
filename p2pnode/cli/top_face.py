"""What `p2pnode top` runs: looks on, and draws whenever gossip tells something new."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from rich.console import Console
from rich.live import Live

from p2pnode.cli.output import Output
from p2pnode.cli.top_view import screen
from p2pnode.client.peers import Observed
from p2pnode.client.picture import in_order, picture
from p2pnode.config import ClientConfig
from p2pnode.swarm.network import Network
from p2pnode.swarm.watch import Watch, watching
from p2pnode.types import SwarmView

REFRESH_S = 1.0
"""How often is looked without being told; deaths are drawn at once."""
QUIT_KEYS = frozenset("qQ\x1b")


async def run_top(network: Network, config: ClientConfig, output: Output) -> None:
    """Draw until q is pressed; with ``--json`` a line per picture until cancelled."""
    async with watching(network, config) as watch:
        if output.as_json:
            async for each in pictures(watch, config):
                output.event("swarm", **each)
            return
        quitting = asyncio.Event()

        def quit_now() -> None:
            quitting.set()
            watch.wake()

        with quit_key(quit_now):
            await _draw(watch, config, quitting)


async def pictures(watch: Watch, config: ClientConfig) -> AsyncGenerator[dict[str, Any], None]:
    """The swarm, each time that it looks different; ages alone are no difference."""
    view, last = await watch.view(), None
    while True:
        now = described(view, watch)
        if now != last:
            yield with_ages(now, view, config.wall_clock())
        last, view = now, await watch.next(REFRESH_S)


def described(view: SwarmView, watch: Watch) -> dict[str, Any]:
    """What is drawn of a swarm, without ages."""
    trips = {a.peer: watch.rtt_s(a.peer) for a in view.announcements}
    known = {peer: rtt_s for peer, rtt_s in trips.items() if rtt_s is not None}
    return picture(Observed(view=view, seen=(), rtts_s=known))


def with_ages(swarm: dict[str, Any], view: SwarmView, now: float) -> dict[str, Any]:
    """The same with the age of each announcement."""
    ages = [round(max(0.0, now - a.issued_at), 1) for a in in_order(view)]
    peers = [{**peer, "age_s": age_s} for peer, age_s in zip(swarm["peers"], ages, strict=True)]
    return {**swarm, "peers": peers}


async def _draw(watch: Watch, config: ClientConfig, quitting: asyncio.Event) -> None:
    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        view = await watch.view()
        while not quitting.is_set():
            swarm = with_ages(described(view, watch), view, config.wall_clock())
            live.update(screen(swarm, console.size), refresh=True)
            view = await watch.next(REFRESH_S)


@contextlib.contextmanager
def quit_key(quit_now: Callable[[], None]) -> Iterator[None]:
    """Keys reach us one by one meanwhile, and q is heeded; nothing where none can come."""
    if not sys.stdin.isatty():
        yield
        return
    loop, file = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(file)

    def on_key() -> None:
        if QUIT_KEYS & set(os.read(file, 64).decode(errors="replace")):
            quit_now()

    tty.setcbreak(file)
    loop.add_reader(file, on_key)
    try:
        yield
    finally:
        loop.remove_reader(file)
        termios.tcsetattr(file, termios.TCSADRAIN, before)
