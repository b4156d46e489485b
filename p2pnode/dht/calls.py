"""One call to another peer: connect first, one deadline, and rest for those who miss it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from p2pnode.dht.address_book import AddressBook
from p2pnode.errors import P2PNodeError, PeerLost, PeerTimeout
from p2pnode.types import PeerId

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 3.0
"""Of one call, with connecting and introducing ourselves before it."""
QUIET_S = 5.0
"""A peer that missed a deadline is not called for so long; doubled each time up to the maximum."""
MAX_QUIET_S = 60.0
MAX_PEERS = 4096

T = TypeVar("T")


class Calls:
    """Bounds every call; `close` ends those that are under way."""

    def __init__(
        self,
        book: AddressBook,
        introduce: Callable[[PeerId], Awaitable[object]],
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._book = book
        self._introduce = introduce
        self._monotonic = monotonic
        self._met: set[PeerId] = set()
        self._quiet: dict[PeerId, tuple[float, float]] = {}
        self._under_way: set[asyncio.Timeout] = set()
        self._is_closed = False
        self.num_answers = 0
        """Of all calls so far: whether it rises tells if anybody is there."""

    async def run(self, peer: PeerId, call: Callable[[], Awaitable[T]]) -> T:
        """Reach the peer and call it; raises PeerTimeout, PeerLost, or what ``call`` raises."""
        if self._is_closed:
            raise PeerLost(peer, "not called: we are leaving")
        if self._monotonic() < self._quiet.get(peer, (0.0, 0.0))[0]:
            raise PeerTimeout(peer, "did not answer a moment ago")
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S) as deadline:
                self._under_way.add(deadline)
                try:
                    answer = await self._reach_and_call(peer, call)
                finally:
                    self._under_way.discard(deadline)
        except TimeoutError as error:
            self._missed(peer)
            raise PeerTimeout(peer, f"no answer in {CALL_TIMEOUT_S:.0f} s") from error
        except P2PNodeError:
            self._missed(peer)
            raise
        self.num_answers += 1
        self._quiet.pop(peer, None)
        return answer

    def forgive(self, peer: PeerId) -> None:
        """Call this peer again at the next occasion."""
        self._quiet.pop(peer, None)

    def close(self) -> None:
        """End the calls under way and refuse new ones."""
        self._is_closed = True
        now = asyncio.get_running_loop().time()
        for deadline in self._under_way:
            deadline.reschedule(now)

    async def _reach_and_call(self, peer: PeerId, call: Callable[[], Awaitable[T]]) -> T:
        """Tried twice: the connection may be to one that has died and is back."""
        await self._reach(peer)
        try:
            return await call()
        except PeerLost as error:
            log.debug("calling again: peer=%s error=%s", peer.short, error)
            self._met.discard(peer)  # one that is back does not know us
        await self._reach(peer)
        return await call()

    async def _reach(self, peer: PeerId) -> None:
        # Also a peer met before: without a connection the daemon would dial it by itself, on every
        # address it remembers, and a dead one's QUIC address is silent for seconds.
        await self._book.connect(peer)
        if peer not in self._met:
            await self._introduce(peer)
            self._met.add(peer)

    def _missed(self, peer: PeerId) -> None:
        self._met.discard(peer)
        _, last_s = self._quiet.get(peer, (0.0, QUIET_S / 2))
        if len(self._quiet) >= MAX_PEERS:
            self._quiet.clear()
        quiet_s = min(2 * last_s, MAX_QUIET_S)
        self._quiet[peer] = (self._monotonic() + quiet_s, quiet_s)
