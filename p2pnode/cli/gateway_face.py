"""The gateway on the command line: what `gateway` runs and shows."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from p2pnode.cli.output import Output
from p2pnode.cli.run import Signals, run_async
from p2pnode.client.client import Client
from p2pnode.config import ClientConfig, NodeConfig, SwarmConfig
from p2pnode.errors import BadRequest
from p2pnode.gateway.app import make_app
from p2pnode.gateway.feed import Feed, GatewaySource
from p2pnode.gateway.gateway import Gateway
from p2pnode.gateway.keys import KeyFile
from p2pnode.gateway.server import ip_address, listening
from p2pnode.gateway.settings import GatewaySettings
from p2pnode.gateway.tracing import NoTracer, OpenTelemetry, closing_off_loop
from p2pnode.log import escape
from p2pnode.tasks import Tasks

NUM_NEIGHBOURS = 24
"""As many as a node has: who shows a swarm should hear of a death at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """Where the gateway answers, and whom."""

    host: str = "127.0.0.1"
    port: int
    tls: tuple[Path, Path] | None = None
    allows_anyone: bool = False
    traces: bool = False
    """Whether OpenTelemetry is told of each request."""

    def settings(self, keys_file: Path) -> GatewaySettings:
        """Raises BadRequest when others could reach us without a key, and nobody said so."""
        is_local = ip_address(self.host).is_loopback
        if not (is_local or self.allows_anyone or KeyFile(keys_file).keys()):
            what = f"{self.host} can be reached by others, and there is no API key"
            do = "make one with `p2pnode gateway keys add NAME`, or say --allow-anyone"
            raise BadRequest(f"{what}; {do}")
        return GatewaySettings(keys_file=keys_file, is_local=is_local)


def run_gateway(config: ClientConfig, model: str | None, where: Where, output: Output) -> None:
    """Run a gateway until a signal ends it."""
    run_async(serve_http(config, model, where, output), Signals(is_end_normal=True))


async def serve_http(config: ClientConfig, model: str | None, where: Where, output: Output) -> None:
    """Join, listen, and answer until cancelled."""
    settings = where.settings(config.swarm.home.gateway_keys)
    tracer = OpenTelemetry() if where.traces else NoTracer()
    gateway, joined = Gateway(settings, tracer=tracer), asyncio.Event()
    watching = replace(config, gossip_neighbours=NUM_NEIGHBOURS)
    make_client = partial(Client, model=model, config=watching)
    async with closing_off_loop(tracer), Tasks() as tasks:
        running = tasks.start(gateway.run(make_client, joined), name="gateway")
        await joined.wait()
        feed = Feed(GatewaySource(gateway))
        tasks.start(feed.run(), name="feed")
        app = make_app(gateway, feed)
        async with listening(app, where.host, where.port, tls=where.tls) as url:
            name = gateway.client.model.spec.name
            output.event("listening", url=url, model=name)
            shown = escape(name)
            output.say(f"listening  {url}/v1 for {shown}, status page {url}/; Ctrl-C ends")
            await asyncio.wait([running])


async def beside_node(
    running: Coroutine[Any, Any, None],
    is_serving: asyncio.Event,
    config: NodeConfig,
    swarm: SwarmConfig,
    port: int,
    output: Output,
) -> None:
    """A node until it ends, and from when it serves on a gateway on this machine.

    The gateway is a client of its own, which joins through the node: it has its own p2pd.
    """
    own = SwarmConfig(home=swarm.home, invite=swarm.invite, starts_swarm=False)
    client = ClientConfig(swarm=own, cache=config.cache, draft="auto")

    async def serve() -> None:
        await is_serving.wait()
        await serve_http(client, config.model, Where(port=port), output)

    async with Tasks() as tasks:
        tasks.start(serve(), name="gateway")
        await running
