"""A gateway on a swarm in this process, asked without sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from p2pnode.gateway.app import make_app
from p2pnode.gateway.gateway import Gateway
from p2pnode.gateway.settings import GatewaySettings
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.model.text import TextCodec

LATENCY_S = 0.01
HOME = "http://127.0.0.1:8000"


class Asked:
    """A gateway, and a browser-like caller of it."""

    def __init__(self, swarm: LocalSwarm, gateway: Gateway, app: FastAPI) -> None:
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

    async def post(self, path: str, *, headers: dict[str, str] | None = None, **body: Any) -> Any:
        """The answer to a JSON body; the model is named unless the body does."""
        answer = await self.http.post(path, json={"model": self.model, **body}, headers=headers)
        return answer


@asynccontextmanager
async def gateway_on(
    folder: Path, cache: Path, *ranges: str, **settings: Any
) -> AsyncIterator[Asked]:
    """Nodes for these ranges, and a gateway with these settings in front of them."""
    async with LocalSwarm(folder, cache=cache, latency_s=LATENCY_S) as swarm:
        await swarm.start(*(ranges or ("0-8",)))
        async with swarm.client() as client:
            gateway = Gateway(GatewaySettings(**settings), client)
            asked = Asked(swarm, gateway, make_app(gateway))
            async with asked.http:
                yield asked
