"""Server-sent events, and answers that end when nobody waits for them any more.

Differs from sse-starlette, which watches for the end of the server in a task without an owner and
patches uvicorn when it is imported; and the headers of our answers wait for the first event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from p2pnode.errors import P2PNodeError
from p2pnode.gateway.errors import ApiError, of_ours
from p2pnode.gateway.json_text import to_json
from p2pnode.tasks import Tasks

T = TypeVar("T")

PING = b": still here\n\n"
DONE = b"data: [DONE]\n\n"


class ClientGone(Exception):
    """Whoever asked has hung up, or reads nothing; what was under way is cancelled."""


def data(value: Mapping[str, Any]) -> bytes:
    """One event without a name, as OpenAI sends them."""
    return b"data: " + to_json(value) + b"\n\n"


def comment(text: str) -> bytes:
    """A line that readers of events skip."""
    return b": " + text.replace("\n", " ").encode() + b"\n\n"


def error_event(error: ApiError) -> bytes:
    """The last event of a stream that failed; never followed by ``[DONE]``."""
    return b"event: error\ndata: " + to_json({"error": error.body}) + b"\n\n"


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do it; when the client disconnects it is cancelled, and ClientGone raised."""
    async with Tasks() as tasks:
        working = tasks.start(work, name="answer")
        leaving = tasks.start(_gone(receive), name="client-gone")
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            await asyncio.wait([working])
        if working.cancelled():
            raise ClientGone
    return working.result()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Sends events as they come.

    Headers are sent with the first event, so that what fails before it is an answer with its own
    status; or with a ping, when the first event takes its time. Later failures are `error` events.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        *,
        headers: Callable[[], dict[str, str]] = dict,
        ping_interval_s: float,
        send_timeout_s: float,
    ) -> None:
        """headers: asked for when they are sent."""
        self._events = events
        self._tell_headers = headers
        self._ping_interval_s = ping_interval_s
        self._send_timeout_s = send_timeout_s
        self._last_sent = 0.0
        self._has_begun = False
        self.status_code = 200
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `Response`."""
        try:
            await unless_gone(receive, self._stream(send))
        except ClientGone:
            return

    async def _stream(self, send: Send) -> None:
        self._last_sent = asyncio.get_running_loop().time()
        async with aclosing(self._events) as events, Tasks() as tasks:
            if self._ping_interval_s > 0:
                tasks.start(self._ping(send), name="sse-ping")
            try:
                async for event in events:
                    await self._send(send, event)
            except (ApiError, P2PNodeError) as error:
                if not self._has_begun:
                    raise
                told = error if isinstance(error, ApiError) else of_ours(error)
                await self._send(send, error_event(told))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _ping(self, send: Send) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            before = self._last_sent
            await asyncio.sleep(before + self._ping_interval_s - clock())
            if self._last_sent == before:
                await self._send(send, PING)

    async def _send(self, send: Send, event: bytes) -> None:
        """Raises ClientGone when the reader takes nothing for too long."""
        if not self._has_begun:
            self._has_begun = True
            await send({"type": "http.response.start", "status": 200, "headers": self._raw()})
        try:
            async with asyncio.timeout(self._send_timeout_s):
                await send({"type": "http.response.body", "body": event, "more_body": True})
        except (TimeoutError, OSError):
            raise ClientGone from None
        self._last_sent = asyncio.get_running_loop().time()

    def _raw(self) -> list[tuple[bytes, bytes]]:
        fixed = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-store",
            "x-accel-buffering": "no",
        }
        every = {**fixed, **self._tell_headers()}
        return [(name.lower().encode(), value.encode("latin-1")) for name, value in every.items()]
