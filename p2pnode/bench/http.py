"""The least that asks over HTTP: one request on a connection of its own."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit


async def asked(
    url: str, what: str, body: bytes = b""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection over which ``what`` (``GET /ping``) was asked, with a JSON body or none."""
    where = urlsplit(url)
    # A line of the page's feed holds a whole picture of the swarm.
    reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=1 << 22)
    headers = f"Host: {where.netloc}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    head = f"{what} HTTP/1.1\r\n{headers}Content-Type: application/json\r\n\r\n"
    writer.write(head.encode() + body)
    return reader, writer
