"""Requests that wait for a connection to a next hop: so many per peer, and none hurts the others.

The other half of the boundary in `serving.handler`, which may catch `Exception` (it logs it and
ends the link).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from p2pnode.errors import P2PNodeError, PeerMisbehaved
from p2pnode.net.link import Link
from p2pnode.tasks import Tasks
from p2pnode.types import PeerId

log = logging.getLogger(__name__)

MAX_WAITING = 128
"""Of one peer; honest clients wait for an answer before they ask again."""


class Requests:
    """Runs requests as tasks. ``async with`` owns them."""

    def __init__(self) -> None:
        self._tasks = Tasks()
        self._waiting: Counter[PeerId] = Counter()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._tasks.__aexit__(kind, error, trace)

    def start(self, work: Coroutine[Any, Any, None], link: Link) -> None:
        """Answer a request of that link's peer; raises PeerMisbehaved when too many wait."""
        if self._waiting[link.peer] >= MAX_WAITING:
            work.close()
            raise PeerMisbehaved(link.peer, "asks for sessions faster than they can be opened")
        self._waiting[link.peer] += 1
        self._tasks.start(self._run(work, link), name=f"request-{link.peer.short}")

    async def _run(self, work: Coroutine[Any, Any, None], link: Link) -> None:
        try:
            await work
        except P2PNodeError:
            raise  # ours, e.g. DaemonDied: ends the node's network
        except Exception:
            log.exception("bug: peer=%s", link.peer.short)
            link.end(PeerMisbehaved(link.peer, "sent a message that broke us"))
        finally:
            self._waiting[link.peer] -= 1
            self._waiting += Counter()  # forgets who is at 0
