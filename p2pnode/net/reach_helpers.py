"""Peers that can help: connected to us and to another, whom we cannot dial.

Two ways, each a question to those helpers:
- `bring`: have the other side dial us;
- `punch`: both dial at the same moment, where the helper sees each. The first packets open the
  NATs on their own side, and those that come then are taken for answers (Ford et al.,
  "Peer-to-peer communication across network address translators", 2005; DCUtR of libp2p, its part
  on QUIC, without relay and measured round trip: QUIC repeats what came too early). It fails when
  a NAT maps each destination to a port of its own (symmetric).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar

from p2pnode.errors import P2PNodeError, PeerLost
from p2pnode.net import seen
from p2pnode.net.ground import Ground
from p2pnode.net.questions import ask
from p2pnode.net.reach_messages import REACH, Came, Fetch, Met, Punch
from p2pnode.tasks import Tasks
from p2pnode.types import PeerId

log = logging.getLogger(__name__)

MAX_HELPERS = 16
FEW_HELPERS = 3
"""For a peer that others can dial, it says: most likely it is gone."""
HELPERS_AT_ONCE = 4
MAX_FAILED = 2
"""So many helpers may be wrong about the other side; one may lie."""
PUNCH_WITHIN_S = 1.5
"""How long both sides dial: three of QUIC's attempts."""
PUNCH_AGAIN_S = 600.0
"""Two NATs that let nothing through are left alone for so long."""
UNKNOWN_FOR_S = 5.0
"""Whom no helper is connected to is most likely gone: they are not asked again so soon, and each
time in vain for twice as long, up to `MAX_UNKNOWN_FOR_S`."""
MAX_UNKNOWN_FOR_S = 40.0
MAX_CLOSED = 1024
SETTLE_S = 0.5
SETTLE_STEP_S = 0.02

Answer = TypeVar("Answer")


class Helpers:
    """Asks helpers. The deadline is the caller's."""

    def __init__(self, ground: Ground, rng: random.Random) -> None:
        self._ground = ground
        self._rng = rng
        self._closed: OrderedDict[PeerId, float] = OrderedDict()
        """Peers to whom we could not punch lately, and when we may try again."""
        self._unknown: OrderedDict[PeerId, float] = OrderedDict()
        """Peers whom nobody knew lately, and until when that is believed."""
        self._unknown_for_s: OrderedDict[PeerId, float] = OrderedDict()
        """How long it was believed the last time."""

    async def bring(
        self, peer: PeerId, offered: tuple[str, ...], *, is_hidden: bool, most: int = MAX_HELPERS
    ) -> None:
        """Have helpers ask a peer to dial us at one of our addresses. Raises PeerLost.

        is_hidden: nobody can from outside; a peer behind the same NAT still may; most: how many
        helpers to ask
        """
        fetch = Fetch(wanted=peer, addresses=offered, is_hidden=is_hidden)

        async def is_here(came: Came) -> bool | None:
            if came.is_connected and await self._settles(peer, SETTLE_S):
                return True
            return False if came.is_known else None

        num_failed = await self._through(peer, fetch, Came, is_here, most)
        if num_failed is not None:
            why = "it cannot dial us" if num_failed else "nobody we know could ask it to dial us"
            raise PeerLost(peer, f"cannot be dialled, and {why}")

    async def punch(self, peer: PeerId, *, most: int = MAX_HELPERS) -> None:
        """Dial a peer while it dials us. Raises PeerLost, at once where it failed lately."""
        now = asyncio.get_running_loop().time()
        if self._closed.get(peer, now) > now:
            raise PeerLost(peer, "cannot be dialled, and neither can we")

        async def is_through(met: Met) -> bool | None:
            where = seen.punchable(peer, met.addresses)
            return await self._meets(peer, where) if where else None

        num_failed = await self._through(peer, Punch(wanted=peer), Met, is_through, most)
        if num_failed:
            _remember(self._closed, peer, now + PUNCH_AGAIN_S)
        if num_failed is not None:
            how = "no hole could be punched" if num_failed else "nobody we know could help"
            raise PeerLost(peer, f"cannot be dialled, and neither can we; {how}")

    async def _meets(self, peer: PeerId, where: tuple[str, ...]) -> bool:
        """Whether our dial or that of the other side is through in time."""
        began = asyncio.get_running_loop().time()
        async with Tasks() as tasks:
            waiting = {
                tasks.start(self._dials(peer, where), name=f"punch-{peer.short}"),
                tasks.start(self._settles(peer, PUNCH_WITHIN_S), name=f"met-{peer.short}"),
            }
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if any(task.result() for task in done):
                    took_s = asyncio.get_running_loop().time() - began
                    log.debug("hole punched: peer=%s took_s=%.3f", peer.short, took_s)
                    return True
        return False

    async def _dials(self, peer: PeerId, where: tuple[str, ...]) -> bool:
        try:
            async with asyncio.timeout(PUNCH_WITHIN_S):
                await self._ground.connect(peer, where)
        except (TimeoutError, P2PNodeError) as error:
            log.debug("no hole: peer=%s error=%r", peer.short, str(error))
            return False
        return True

    async def _settles(self, peer: PeerId, within_s: float) -> bool:
        """Whether the other side's connection is there: its word may be faster than it is."""
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + within_s
        while peer not in await self._ground.observed():
            if clock() > give_up_at:
                return False
            await asyncio.sleep(SETTLE_STEP_S)
        return True

    async def _through(
        self,
        peer: PeerId,
        question: object,
        expected: type[Answer],
        use: Callable[[Answer], Awaitable[bool | None]],
        most: int,
    ) -> int | None:
        """Ask helpers, a few at once, until one helped: None. Else how many helped in vain.

        use: whether an answer helped; None when that helper could not know
        """
        now = asyncio.get_running_loop().time()
        if self._unknown.get(peer, now) > now:
            return 0
        observed = sorted(await self._ground.observed())
        helpers = [each for each in observed if each != peer and self._ground.may_ask(each)]
        self._rng.shuffle(helpers)
        del helpers[most:]
        num_failed = 0
        waiting: set[asyncio.Task[Answer | None]] = set()
        async with Tasks() as tasks:
            while (helpers or waiting) and num_failed < MAX_FAILED:
                while helpers and len(waiting) < HELPERS_AT_ONCE:
                    asking = self._ask(helpers.pop(), question, expected)
                    waiting.add(tasks.start(asking, name=f"help-{peer.short}"))
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for answer in filter(None, (task.result() for task in done)):
                    has_helped = await use(answer)
                    if has_helped:
                        self._unknown_for_s.pop(peer, None)
                        return None
                    num_failed += has_helped is False
        if not num_failed:
            self._note_unknown(peer)
        return num_failed

    def _note_unknown(self, peer: PeerId) -> None:
        now = asyncio.get_running_loop().time()
        if self._unknown.get(peer, now) > now:
            return  # both ways were tried: that counts once
        for_s = min(2 * self._unknown_for_s.get(peer, UNKNOWN_FOR_S / 2), MAX_UNKNOWN_FOR_S)
        _remember(self._unknown, peer, now + for_s)
        _remember(self._unknown_for_s, peer, for_s)

    async def _ask(self, helper: PeerId, question: object, expected: type[Answer]) -> Answer | None:
        try:
            return await ask(self._ground, helper, REACH, question, expected)
        except P2PNodeError as error:
            log.debug("no help: peer=%s error=%r", helper.short, str(error))
            return None


def _remember(peers: OrderedDict[PeerId, float], peer: PeerId, value: float) -> None:
    """Note something of a peer; the oldest are forgotten."""
    peers[peer] = value
    peers.move_to_end(peer)
    if len(peers) > MAX_CLOSED:
        peers.popitem(last=False)
