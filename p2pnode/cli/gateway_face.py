"""The gateway on the command line: what `gateway` runs and shows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from p2pnode.cli.output import Output
from p2pnode.cli.run import Signals, run_async
from p2pnode.client.client import Client
from p2pnode.config import ClientConfig
from p2pnode.gateway.app import make_app
from p2pnode.gateway.feed import Feed, GatewaySource
from p2pnode.gateway.gateway import Gateway
from p2pnode.gateway.server import listening
from p2pnode.gateway.settings import GatewaySettings
from p2pnode.tasks import Tasks


@dataclass(frozen=True, kw_only=True, slots=True)
class Listening:
    """Where the gateway answers."""

    host: str
    port: int
    tls: tuple[Path, Path] | None
    allows_anyone: bool


def run_gateway(config: ClientConfig, model: str | None, where: Listening, output: Output) -> None:
    """Run a gateway until a signal ends it."""
    run_async(serve_http(config, model, where, output), Signals(is_end_normal=True))


async def serve_http(
    config: ClientConfig, model: str | None, where: Listening, output: Output
) -> None:
    """Join, listen, and answer until cancelled."""
    gateway, joined = Gateway(GatewaySettings()), asyncio.Event()
    async with Tasks() as tasks:
        running = tasks.start(
            gateway.run(lambda: Client(model=model, config=config), joined), name="gateway"
        )
        await joined.wait()
        feed = Feed(GatewaySource(gateway))
        tasks.start(feed.run(), name="feed")
        app = make_app(gateway, feed)
        async with listening(app, where.host, where.port, tls=where.tls) as url:
            name = gateway.client.model.spec.name
            output.event("listening", url=url, model=name)
            output.say(f"listening  {url}/v1 for {name}, status page {url}/; Ctrl-C ends")
            await asyncio.wait([running])
