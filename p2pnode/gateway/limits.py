"""The door of the gateway: who may come in, how often, and how many at a time.

- With a key file a key is needed, but for `OPEN` paths.
- Without one, a web page that the user of this machine has open must not be able to ask: a request
  from a foreign origin, or (on loopback) for a foreign host name, is refused. CORS is off.
- Each key has its own rate (a bucket that refills evenly) and its own number of requests at a time;
  all who need none share one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from p2pnode.errors import P2PNodeError
from p2pnode.gateway.errors import ApiError, of_ours
from p2pnode.gateway.keys import ApiKey, KeyFile
from p2pnode.gateway.settings import GatewaySettings

OPEN = frozenset({"/", "/ping", "/health", "/favicon.ico"})
OPEN_BELOW = "/static/"
LIMITED_BELOW = "/v1/"
ANYONE = "anyone"
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
BUSY_RETRY_S = 1.0


@dataclass(slots=True)
class _Bucket:
    """Requests that may still come; refills evenly."""

    left: float
    at: float
    num_running: int = 0


class Limits:
    """Rates and numbers of requests per caller. Pure but for the clock it is given."""

    def __init__(self, settings: GatewaySettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    @contextmanager
    def request(self, caller: str, key: ApiKey | None) -> Iterator[None]:
        """One request of that caller; raises ApiError (429) when it has had its share."""
        per_minute = (key and key.requests_per_minute) or self._settings.requests_per_minute
        at_a_time = (key and key.concurrent_requests) or self._settings.concurrent_requests
        bucket = self._bucket(caller, per_minute)
        if bucket.num_running >= at_a_time:
            what = f"{at_a_time} requests of yours are running; wait for one to end"
            raise ApiError(429, "too_many_at_once", what, retry_after_s=BUSY_RETRY_S)
        if bucket.left < 1.0:
            wait_s = (1.0 - bucket.left) * 60.0 / per_minute
            what = f"more than {per_minute} requests per minute"
            raise ApiError(429, "rate_limit_exceeded", what, retry_after_s=wait_s + 0.5)
        bucket.left -= 1.0
        bucket.num_running += 1
        try:
            yield
        finally:
            bucket.num_running -= 1

    def _bucket(self, caller: str, per_minute: int) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.setdefault(caller, _Bucket(float(per_minute), now))
        gained = (now - bucket.at) * per_minute / 60.0
        bucket.left, bucket.at = min(float(per_minute), bucket.left + gained), now
        return bucket


class Door:
    """ASGI middleware: lets a request in, and keeps its place until its answer has ended."""

    def __init__(
        self, app: ASGIApp, settings: GatewaySettings, limits: Limits, seen: Callable[[int], None]
    ) -> None:
        """seen: told the status of each answer."""
        self._app = app
        self._settings = settings
        self._limits = limits
        self._seen = seen
        self._keys = KeyFile(settings.keys_file) if settings.keys_file else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._seen(message["status"])
            await send(message)

        try:
            key = self._admit(scope)
            caller = key.id if key else ANYONE
            scope.setdefault("state", {})["caller"] = caller
            if not scope["path"].startswith(LIMITED_BELOW):
                await self._app(scope, receive, counted)
                return
            with self._limits.request(caller, key):
                await self._app(scope, receive, counted)
        except (ApiError, P2PNodeError) as error:
            told = error if isinstance(error, ApiError) else of_ours(error)
            await told.response()(scope, receive, counted)

    def _admit(self, scope: Scope) -> ApiKey | None:
        """Raises ApiError (401, 403), KeyFileError."""
        headers, path = Headers(scope=scope), scope["path"]
        if self._keys is not None and self._keys.exists:
            if path in OPEN or path.startswith(OPEN_BELOW):
                return None
            return self._key(headers)
        host = _host_name(headers.get("host", ""))
        if self._settings.is_local and host not in LOCAL_NAMES:
            what = "asked for by a name that is not this machine's"
            raise ApiError(403, "foreign_host", what)
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            what = "requests of other web sites are refused while there are no API keys"
            raise ApiError(403, "foreign_origin", what)
        return None

    def _key(self, headers: Headers) -> ApiKey:
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret or self._keys is None:
            what = "an API key is needed: Authorization: Bearer KEY"
            raise ApiError(401, "missing_api_key", what)
        key = self._keys.find(secret.strip())
        if key is None:
            raise ApiError(401, "invalid_api_key", "this API key is not known here")
        return key


def _host_name(host: str) -> str:
    """Without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def caller_of(request: Request) -> str:
    """Who asks: the id of their key, or `ANYONE`."""
    caller: str = request.state.caller
    return caller
