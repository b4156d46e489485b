"""A gateway on a swarm in this process, asked without sockets."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from p2pnode.gateway.app import make_app
from p2pnode.gateway.gateway import Gateway
from p2pnode.gateway.settings import GatewaySettings
from p2pnode.gateway.tracing import Tracer
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.model.text import TextCodec

LATENCY_S = 0.0015
MAX_NEW_TOKENS = 16
"""Of answers whose caller does not say."""
HOME = "http://127.0.0.1:8000"


class Asked:
    """A gateway, and a browser-like caller of it."""

    def __init__(self, swarm: Any, gateway: Gateway, app: FastAPI) -> None:
        self.swarm = swarm
        self.gateway = gateway
        self.app = app
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HOME)

    @property
    def model(self) -> str:
        return self.gateway.client.model.spec.name

    @property
    def codec(self) -> TextCodec:
        return self.gateway.client.model.codec

    @property
    def tokens(self) -> float:
        """How many tokens it has sent."""
        return self.gateway.metrics.registry.get_sample_value("p2pnode_tokens_total") or 0.0

    async def post(self, path: str, *, headers: dict[str, str] | None = None, **body: Any) -> Any:
        """The answer to a JSON body; the model is named unless the body does."""
        answer = await self.http.post(path, json={"model": self.model, **body}, headers=headers)
        return answer


async def until(holds: Callable[[], bool], within_s: float) -> None:
    """Wait for it; TimeoutError when it takes longer."""
    async with asyncio.timeout(within_s):
        for _ in itertools.takewhile(lambda _: not holds(), itertools.count()):
            await asyncio.sleep(0.01)


@asynccontextmanager
async def gateway_on(
    folder: Path, cache: Path, *ranges: str, tracer: Tracer | None = None, **settings: Any
) -> AsyncIterator[Asked]:
    """Nodes for these ranges, and a gateway with these settings in front of them."""
    config = {"max_new_tokens": MAX_NEW_TOKENS}
    async with LocalSwarm(folder, cache=cache, latency_s=LATENCY_S, config=config) as swarm:
        await swarm.start(*(ranges or ("0-8",)))
        async with swarm.client() as client:
            gateway = Gateway(GatewaySettings(**settings), client, tracer)
            asked = Asked(swarm, gateway, make_app(gateway))
            async with asked.http:
                yield asked
