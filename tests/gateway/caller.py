"""Calls an ASGI app as a server does: reads an answer while it comes, or hangs up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp, Message, Scope

from p2pnode.tasks import Tasks
from tests.gateway.streams import events_of


class Call:
    """One request under way."""

    def __init__(self, body: bytes, max_unread: int) -> None:
        self._in: asyncio.Queue[Message] = asyncio.Queue()
        self._out: asyncio.Queue[Message] = asyncio.Queue(max_unread)
        self._in.put_nowait({"type": "http.request", "body": body, "more_body": False})
        self.status = 0
        self.headers: dict[str, str] = {}
        self.raw = ""
        """All that came, comments included."""
        self._rest = ""

    def hang_up(self) -> None:
        """The client is gone."""
        self._in.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> Message:
        return await self._in.get()

    async def send(self, message: Message) -> None:
        await self._out.put(message)

    async def begin(self) -> None:
        """Wait for status and headers."""
        start = await self._out.get()
        self.status = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}

    async def events(self) -> AsyncIterator[Any]:
        """Each event as it comes, until the end of the answer."""
        while True:
            message = await self._out.get()
            text = message.get("body", b"").decode()
            self.raw += text
            self._rest += text
            whole, cut, self._rest = self._rest.rpartition("\n\n")
            for event in events_of(whole + cut):
                yield event
            if not message.get("more_body"):
                return


@asynccontextmanager
async def calling(
    app: ASGIApp, path: str, *, max_unread: int = 0, **body: Any
) -> AsyncIterator[Call]:
    """A POST with a JSON body; leaving the block waits until the app has ended it.

    max_unread: how much of the answer may wait to be read; 0: all of it
    """
    data = json.dumps(body).encode()
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    call = Call(data, max_unread)
    async with Tasks() as tasks:
        tasks.start(app(scope, call.receive, call.send), name="call")  # type: ignore[arg-type]
        yield call
        await tasks.wait()
