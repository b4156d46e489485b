"""The socket: an address that is free, and nobody who holds it for nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from p2pnode.errors import BadRequest, LocalError, PortBusy
from p2pnode.gateway.app import make_app
from p2pnode.gateway.gateway import Gateway
from p2pnode.gateway.server import listening
from p2pnode.gateway.settings import GatewaySettings

HOST = "127.0.0.1"
PART = b"GET /ping HTTP/1.1\r\nHost: loc"
WHOLE = b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(("num_before", "sent"), [(0, b""), (0, PART), (1, PART)])
async def test_who_does_not_end_its_request_is_cut_off(num_before: int, sent: bytes) -> None:
    app = make_app(Gateway(GatewaySettings()))
    async with listening(app, HOST, 0, headers_within_s=0.2) as url:
        reader, writer = await asyncio.open_connection(HOST, urlsplit(url).port)
        for _ in range(num_before):
            writer.write(WHOLE)
            await reader.readuntil(b'{"status":"ok"}')
        writer.write(sent)
        async with asyncio.timeout(10.0):
            assert await reader.read() == b""
        writer.close()


async def test_one_connection_takes_many_requests() -> None:
    app = make_app(Gateway(GatewaySettings()))
    async with listening(app, HOST, 0, headers_within_s=0.2) as url:
        reader, writer = await asyncio.open_connection(HOST, urlsplit(url).port)
        for _ in range(3):
            writer.write(WHOLE)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            await reader.readuntil(b'{"status":"ok"}')
        writer.close()


async def test_a_port_that_is_taken_and_a_name_that_is_no_address_are_errors() -> None:
    app = make_app(Gateway(GatewaySettings()))
    async with listening(app, HOST, 0) as url:
        with pytest.raises(PortBusy, match="try another with --port"):
            async with listening(app, HOST, urlsplit(url).port or 0):
                pass
    with pytest.raises(BadRequest, match="is not an IP address"):
        async with listening(app, "example.org", 0):
            pass


async def test_a_certificate_that_is_none_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    app = make_app(Gateway(GatewaySettings()))
    for content in (None, "no certificate"):
        if content is not None:
            file.write_text(content)
        with pytest.raises(LocalError, match="the certificate or its key"):
            async with listening(app, HOST, 0, tls=(file, file)):
                pass
