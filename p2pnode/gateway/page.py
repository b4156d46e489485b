"""The status page: its files, as they lie in ``static``, and the feed that it follows.

Nothing that a stranger wrote becomes part of a document here: the page gets it as JSON and shows it
as text. The policy below would stop what slips through: no script but ours, no inline ones, and no
markup made from strings (trusted types).
"""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from p2pnode.gateway.errors import ApiError
from p2pnode.gateway.feed import Feed
from p2pnode.gateway.gateway import gateway_of
from p2pnode.gateway.sse import EventStream

STATIC = Path(__file__).with_name("static")
INDEX = "index.html"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
MAX_VIEWERS = 512
RETRY_S = 5.0


def make_router(feed: Feed) -> APIRouter:
    """``/``, ``/static/FILE`` and ``/swarm/events``; they are for people, not part of the API."""
    router = APIRouter(include_in_schema=False)
    files = {file.name: _File(file) for file in STATIC.iterdir() if file.suffix in MEDIA_TYPES}

    @router.get("/")
    async def index(request: Request) -> Response:
        return files[INDEX].answer(request)

    @router.get("/static/{name}")
    async def file(request: Request, name: str) -> Response:
        if name not in files:
            raise ApiError(HTTPStatus.NOT_FOUND, "not_found", "the page has no such file")
        return files[name].answer(request)

    @router.get("/swarm/events")
    async def events(request: Request) -> Response:
        if feed.num_viewers >= MAX_VIEWERS:
            what = f"{MAX_VIEWERS} look at this page already"
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE, "too_many_viewers", what, retry_after_s=RETRY_S
            )
        settings = gateway_of(request).settings
        return EventStream(
            feed.events(),
            ping_interval_s=settings.ping_interval_s,
            send_timeout_s=settings.send_timeout_s,
        )

    return router


class _File:
    """One file of the page, read once."""

    def __init__(self, file: Path) -> None:
        self._content = file.read_bytes()
        self._media_type = MEDIA_TYPES[file.suffix]
        self._etag = f'"{hashlib.sha256(self._content).hexdigest()[:16]}"'

    def answer(self, request: Request) -> Response:
        """The file, or that what the browser has of it is still right."""
        headers = {**HEADERS, "ETag": self._etag}
        if self._etag in request.headers.get("if-none-match", ""):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(self._content, headers=headers, media_type=self._media_type)
