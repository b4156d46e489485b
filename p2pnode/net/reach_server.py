"""What we do for others who cannot be dialled, or do not know whether they can.

Rules:
- we dial only where the asker is seen, and pass on only where we see it, so that nobody is sent to
  a third machine; only for two peers that we see at one host are their private addresses passed on;
- who asks too often, or while much is under way, gets no answer.
"""

from __future__ import annotations

import asyncio
import logging

from p2pnode.errors import P2PNodeError, PeerRefused, WireError
from p2pnode.net import seen
from p2pnode.net.budget import Budget
from p2pnode.net.ground import Ground
from p2pnode.net.questions import answer, ask
from p2pnode.net.reach_messages import REACH, CallBack, CalledBack, Came, Come, Fetch
from p2pnode.net.transport import ByteStream
from p2pnode.types import PeerId

log = logging.getLogger(__name__)

SERVE_WITHIN_S = 5.0
COME_WITHIN_S = 3.0
"""How long one that we ask to come may take to dial."""
MAX_UNDER_WAY = 32
ASKS_AT_ONCE, ASKS_PER_S = 20.0, 2.0
COMES_AT_ONCE, COMES_PER_S = 40.0, 4.0
"""One peer may be the neighbour of many who want us."""


class ReachServer:
    """Answers `REACH` streams."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._asks = Budget(ASKS_AT_ONCE, ASKS_PER_S)
        self._comes = Budget(COMES_AT_ONCE, COMES_PER_S)
        self._under_way = 0

    async def handle(self, stream: ByteStream) -> None:
        """Serve one stream; a `StreamHandler`."""
        if self._under_way >= MAX_UNDER_WAY:
            return
        self._under_way += 1
        try:
            await answer(stream, self._reply, SERVE_WITHIN_S)
        finally:
            self._under_way -= 1

    async def _reply(self, asker: PeerId, question: object) -> object:
        now = asyncio.get_running_loop().time()
        budget = self._comes if isinstance(question, Come) else self._asks
        if not budget.allows(asker, now):
            raise PeerRefused(asker, "asks too often")
        match question:
            case CallBack():
                return await self._call_back(asker, question)
            case Fetch():
                return await self._fetch(asker, question)
            case Come():
                return await self._come(question)
            case _:
                raise WireError(f"{type(question).__name__} is no question of {REACH}")

    async def _call_back(self, asker: PeerId, question: CallBack) -> CalledBack:
        hosts = (await self._ground.observed()).get(asker, ())
        reached = []
        for host in hosts:
            at_host = seen.over_tcp(seen.as_seen(asker, question.addresses, [host]))
            if at_host and await self._ground.answers(at_host[0]):
                reached.append(host)
        return CalledBack(reached=tuple(reached))

    async def _fetch(self, asker: PeerId, question: Fetch) -> Came:
        observed = await self._ground.observed()
        wanted = question.wanted
        if wanted not in observed:
            return Came(is_connected=False, is_known=False)
        ours, theirs = observed.get(asker, ()), observed[wanted]
        passed_on = seen.as_seen(asker, question.addresses, ours)
        if not set(ours).isdisjoint(theirs):
            passed_on += seen.private(question.addresses)
        if not passed_on:
            return Came(is_connected=False, is_known=True)
        come = Come(wanted_by=asker, addresses=passed_on[: seen.MAX_ADDRESSES])
        try:
            async with asyncio.timeout(COME_WITHIN_S):
                return await ask(self._ground, wanted, REACH, come, Came)
        except (TimeoutError, P2PNodeError) as error:
            log.debug("peer not fetched: peer=%s error=%r", wanted.short, str(error))
            return Came(is_connected=False, is_known=True)

    async def _come(self, question: Come) -> Came:
        peer = question.wanted_by
        valid = tuple(
            address
            for address in question.addresses[: seen.MAX_ADDRESSES]
            if seen.hosts_of([address]) and address.endswith(f"/p2p/{peer}")
        )
        try:
            async with asyncio.timeout(COME_WITHIN_S):
                await self._ground.connect(peer, valid)
        except (TimeoutError, P2PNodeError) as error:
            log.debug("could not come: peer=%s error=%r", peer.short, str(error))
            return Came(is_connected=False, is_known=True)
        return Came(is_connected=True, is_known=True)
