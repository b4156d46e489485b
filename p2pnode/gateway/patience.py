"""Connections that send their request too slowly are closed; uvicorn itself waits for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_WITHIN_S = 10.0
"""From the first byte, or from connecting, to the end of the headers."""


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 with a deadline for the headers of each request."""

    headers_within_s = HEADERS_WITHIN_S

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop()
        super().connection_lost(exc)

    @property
    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        if not self._is_between_requests:
            self._stop()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.headers_within_s, self._close)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        self._deadline = None
        if self._is_between_requests and not self.transport.is_closing():
            self.transport.close()


def impatient(headers_within_s: float) -> type[ImpatientProtocol]:
    """A protocol with that deadline."""
    return type("Impatient", (ImpatientProtocol,), {"headers_within_s": headers_within_s})
