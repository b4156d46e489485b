"""What we do for others who cannot be dialled, or do not know whether they can.

Rules:
- we dial only where the asker is seen, and pass on only where we see it, so that nobody is sent to
  a third machine; only for two peers that we see at one host are their private addresses passed on;
- who wants to punch is told where we see the other, and the other where we see it: two public
  addresses at most. The other dials for a second or two, whether or not that leads anywhere;
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
from p2pnode.net.reach_helpers import PUNCH_WITHIN_S
from p2pnode.net.reach_messages import (
    REACH,
    CallBack,
    CalledBack,
    Came,
    Come,
    Fetch,
    Meet,
    Met,
    Punch,
)
from p2pnode.net.transport import ByteStream
from p2pnode.tasks import Tasks
from p2pnode.types import PeerId

log = logging.getLogger(__name__)

SERVE_WITHIN_S = 5.0
COME_WITHIN_S = 3.0
"""How long one that we ask to come may take to dial."""
MEET_WITHIN_S = 1.5
"""How long one that we ask to meet another may take to say that it will."""
MAX_UNDER_WAY = 32
ASKS_AT_ONCE, ASKS_PER_S = 20.0, 2.0
COMES_AT_ONCE, COMES_PER_S = 40.0, 4.0
"""One peer may be the neighbour of many who want us."""


class ReachServer:
    """Answers `REACH` streams.

    tasks: own the dials that go on after the answer
    """

    def __init__(self, ground: Ground, tasks: Tasks) -> None:
        self._ground = ground
        self._tasks = tasks
        self._asks = Budget(ASKS_AT_ONCE, ASKS_PER_S)
        self._comes = Budget(COMES_AT_ONCE, COMES_PER_S)
        self._under_way = 0
        self._num_meeting = 0
        self._is_closed = False

    def close(self) -> None:
        """Start no more dials: their owner is about to end."""
        self._is_closed = True

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
        budget = self._comes if isinstance(question, Come | Meet) else self._asks
        if not budget.allows(asker, now):
            raise PeerRefused(asker, "asks too often")
        match question:
            case CallBack():
                return await self._call_back(asker, question)
            case Fetch():
                return await self._fetch(asker, question)
            case Come():
                return await self._come(question)
            case Punch():
                return await self._punch(asker, question)
            case Meet():
                return self._meet(question)
            case _:
                raise WireError(f"{type(question).__name__} is no question of {REACH}")

    async def _call_back(self, asker: PeerId, question: CallBack) -> CalledBack:
        hosts = sorted(seen.hosts_of((await self._ground.observed()).get(asker, ())))
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
        ours = sorted(seen.hosts_of(observed.get(asker, ())))
        theirs = seen.hosts_of(observed[wanted])
        passed_on = () if question.is_hidden else seen.as_seen(asker, question.addresses, ours)
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

    async def _punch(self, asker: PeerId, question: Punch) -> Met:
        observed = await self._ground.observed()
        wanted = question.wanted
        if wanted not in observed:
            return Met(is_known=False)
        ours = seen.punchable(asker, observed.get(asker, ()))
        theirs = seen.punchable(wanted, observed[wanted])
        if not ours or not theirs:
            return Met(is_known=True)
        try:
            async with asyncio.timeout(MEET_WITHIN_S):
                meet = Meet(wanted_by=asker, addresses=ours)
                met = await ask(self._ground, wanted, REACH, meet, Met)
        except (TimeoutError, P2PNodeError) as error:
            log.debug("peer does not meet: peer=%s error=%r", wanted.short, str(error))
            return Met(is_known=False)
        return Met(is_known=met.is_known, addresses=theirs if met.is_known else ())

    def _meet(self, question: Meet) -> Met:
        """Answered at once: our first packet should be on its way when the other side dials."""
        where = seen.punchable(question.wanted_by, question.addresses)
        if not where or self._is_closed or self._num_meeting >= MAX_UNDER_WAY:
            return Met(is_known=False)
        self._num_meeting += 1
        dialling = self._dial(question.wanted_by, where)
        self._tasks.start(dialling, name=f"meet-{question.wanted_by.short}")
        return Met(is_known=True)

    async def _dial(self, peer: PeerId, where: tuple[str, ...]) -> None:
        try:
            async with asyncio.timeout(PUNCH_WITHIN_S):
                await self._ground.connect(peer, where)
        except (TimeoutError, P2PNodeError) as error:
            log.debug("did not meet: peer=%s error=%r", peer.short, str(error))
        finally:
            self._num_meeting -= 1
