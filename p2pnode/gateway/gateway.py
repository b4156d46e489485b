"""What all requests of one gateway share, and how it stays in the swarm."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus

from starlette.requests import HTTPConnection

from p2pnode.client.client import Client
from p2pnode.errors import P2PNodeError
from p2pnode.gateway.errors import RETRY_NO_CHAIN_S, ApiError
from p2pnode.gateway.limits import Limits
from p2pnode.gateway.metrics import Metrics
from p2pnode.gateway.resume import Resumable
from p2pnode.gateway.settings import GatewaySettings
from p2pnode.gateway.tracing import NoTracer, Tracer

log = logging.getLogger(__name__)

JOIN_AGAIN_S = 5.0


class Gateway:
    """The client that answers, and the rules for whom; `app.make_app` puts HTTP around it."""

    def __init__(
        self,
        settings: GatewaySettings,
        client: Client | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """client: one that is entered already; without it `run` brings one.

        To be made within an event loop.
        """
        self.settings = settings
        clock = asyncio.get_running_loop().time
        self.limits = Limits(settings, clock)
        self.metrics = Metrics()
        self.tracer = tracer or NoTracer()
        self.resumable = Resumable(settings.max_resumable, settings.resume_for_s, clock)
        self._client = client
        self.why_not = "" if client else "not joined yet"
        """Why there is no client; empty while there is one."""

    @property
    def client(self) -> Client:
        """The client in use; raises ApiError (503) while there is none."""
        if self._client is None:
            what = f"the gateway is in no swarm: {self.why_not}"
            status, again_s = HTTPStatus.SERVICE_UNAVAILABLE, RETRY_NO_CHAIN_S
            raise ApiError(status, "not_joined", what, retry_after_s=again_s)
        return self._client

    def check_joined(self) -> None:
        """Raises ApiError (503) while there is no client."""
        _ = self.client

    async def run(self, make_client: Callable[[], Client], joined: asyncio.Event) -> None:
        """Be in the swarm until cancelled; sets ``joined`` when we are, for the first time.

        When the network dies a new client joins again. Raises what the first joining has raised.
        """
        while True:
            try:
                async with make_client() as client:
                    self._client, self.why_not = client, ""
                    joined.set()
                    try:
                        await client.wait_closed()
                    finally:
                        self._client = None
            except P2PNodeError as error:
                if not joined.is_set():
                    raise
                self.why_not = str(error)
                log.warning("network died, joining again: error=%s", error)
            await asyncio.sleep(JOIN_AGAIN_S)


def gateway_of(connection: HTTPConnection) -> Gateway:
    """The gateway that a request came to."""
    gateway: Gateway = connection.app.state.gateway
    return gateway
