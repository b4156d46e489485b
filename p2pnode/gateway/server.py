"""Listens for HTTP: a socket of ours, and uvicorn on our own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from p2pnode.errors import BadRequest, LocalError, PortBusy
from p2pnode.gateway.patience import HEADERS_WITHIN_S, impatient
from p2pnode.log import escape
from p2pnode.tasks import Tasks

BACKLOG = 1024
MAX_CONNECTIONS = 1024
"""More at a time are answered 503 at once."""
KEEP_ALIVE_S = 30
STOP_WITHIN_S = 2


@asynccontextmanager
async def listening(
    app: FastAPI,
    host: str,
    port: int,
    *,
    tls: tuple[Path, Path] | None = None,
    headers_within_s: float = HEADERS_WITHIN_S,
) -> AsyncIterator[str]:
    """Answer HTTP while the block runs; yields the URL.

    port: 0 takes any; tls: certificate and key in PEM
    Raises PortBusy, LocalError (certificate or key).
    """
    with bound(host, port) as sock:
        config = uvicorn.Config(
            app,
            http=impatient(headers_within_s),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_WITHIN_S,
            ssl_certfile=tls[0] if tls else None,
            ssl_keyfile=tls[1] if tls else None,
        )
        try:
            config.load()
        except OSError as error:
            what = f"the certificate or its key cannot be used: {escape(str(error))}"
            raise LocalError(what) from None
        server = _Server(config)
        async with Tasks() as tasks:
            serving = tasks.start(server.serve([sock]), name="http")
            await server.ready.wait()
            try:
                yield _url(sock, is_tls=tls is not None)
            finally:
                server.should_exit = True
                await asyncio.wait([serving])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the command's (`cli.run`)."""
        yield


@contextlib.contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens there; raises PortBusy, BadRequest when it is no address of ours."""
    family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1" if host == "localhost" else host, port))
            sock.listen(BACKLOG)
        except OSError as error:
            what = f"cannot listen on {host} port {port}: {error.strerror}"
            raise PortBusy(f"{what}; try another with --port") from None
        yield sock


def ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address to listen on; raises BadRequest."""
    try:
        return ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise BadRequest(f"{escape(host, 60)!r} is not an IP address of this machine") from None


def _url(sock: socket.socket, *, is_tls: bool) -> str:
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if is_tls else 'http'}://{shown}:{port}"
