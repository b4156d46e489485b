"""Reads a request's body with limits: its bytes while they come, its depth while it is parsed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from p2pnode.gateway.errors import ApiError
from p2pnode.gateway.gateway import gateway_of
from p2pnode.log import escape

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

NOBODY_READS = 499
"""The status of an answer that nobody waits for any more; only logs see it."""


class BoundedRoute(APIRoute):
    """A route whose body is counted before it is parsed."""

    def get_route_handler(self) -> Handler:
        """See `APIRoute`; ``application/json`` only, so that no web page's form can reach us."""
        handle = super().get_route_handler()

        async def read_and_handle(request: Request) -> Response:
            if self.body_field is None:
                return await handle(request)
            bounded = BoundedRequest(request.scope, request.receive)
            try:
                await bounded.json()
            except ClientDisconnect:
                return Response(status_code=NOBODY_READS)
            return await handle(bounded)

        return read_and_handle


class BoundedRequest(Request):
    """Raises ApiError when the body is too long, too slow, too deep, or not JSON."""

    _bytes: bytes | None = None
    _value: Any = None

    async def body(self) -> bytes:
        """See `Request.body`."""
        if self._bytes is None:
            settings = gateway_of(self).settings
            try:
                async with asyncio.timeout(settings.body_timeout_s):
                    self._bytes = await self._read(settings.max_body_bytes)
            except TimeoutError:
                raise ApiError(408, "timeout", "the body did not arrive in time") from None
        return self._bytes

    async def json(self) -> Any:
        """See `Request.json`; JSON of at most 200 levels (the parser's own limit), in UTF-8."""
        if self._value is None:
            if self.headers.get("content-type", "").partition(";")[0].strip() != _JSON:
                raise ApiError(400, "bad_content_type", f"Content-Type must be {_JSON}")
            try:
                self._value = from_json(await self.body(), allow_inf_nan=False)
            except ValueError as error:
                what = f"the body is not JSON: {escape(str(error))}"
                raise ApiError(400, "invalid_json", what) from None
        return self._value

    async def _read(self, limit: int) -> bytes:
        pieces, size = [], 0
        async for piece in self.stream():
            size += len(piece)
            if size > limit:
                raise ApiError(413, "too_large", f"the body is longer than {limit} bytes")
            pieces.append(piece)
        return b"".join(pieces)


_JSON = "application/json"
