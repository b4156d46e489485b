"""One at a time per peer: many who want a link to the same one at once open one link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from p2pnode.types import PeerId


@dataclass(slots=True)
class _Door:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    num_users: int = 0


class Doors:
    """A lock for each peer, kept while somebody uses or awaits it."""

    def __init__(self) -> None:
        self._doors: dict[PeerId, _Door] = {}

    @asynccontextmanager
    async def through(self, peer: PeerId) -> AsyncIterator[None]:
        """Be the only one in here for that peer."""
        door = self._doors.setdefault(peer, _Door())
        door.num_users += 1
        try:
            async with door.lock:
                yield
        finally:
            door.num_users -= 1
            if not door.num_users:
                del self._doors[peer]
