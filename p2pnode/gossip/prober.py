"""Finding out whether a peer answers: a ping of ours, and pings by helpers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from p2pnode.errors import P2PNodeError, PeerError, PeerLost, PeerTimeout
from p2pnode.gossip.core import Core
from p2pnode.gossip.messages import Probe, Probed, Sync
from p2pnode.net.link import Link
from p2pnode.net.links import Links
from p2pnode.types import PeerId
from p2pnode.wire.messages import CONTROL

log = logging.getLogger(__name__)

NUM_HELPERS = 3
MAX_HELPED = 8
"""At the same time; who asks for more gets no answer."""
PING_FLOOR_S = 0.5
PING_CAP_S = 3.0
PING_RTTS = 4.0
"""An answer may take so many usual round trips."""
STALL_S = 0.25
"""A deadline that fires so late says that we were slow ourselves."""


class Prober:
    """Pings over the control links of one participant."""

    def __init__(self, core: Core, links: Links) -> None:
        self._core = core
        self._links = links
        self._asked: dict[int, asyncio.Future[bool]] = {}
        self._num_asked = 0
        self._num_helped = 0

    async def reaches(self, peer: PeerId, opening: Sync | None = None) -> bool:
        """Whether a peer answers a ping; sends it the opening of an exchange, too."""
        try:
            link = await self._links.control(peer, self._core.members.addresses(peer))
            rtt_s = await self._ping(link, opening)
        except PeerError as error:
            log.debug("no answer: peer=%s error=%s", peer.short, error)
            return False
        self._core.answered(peer, rtt_s, asyncio.get_running_loop().time())
        return True

    async def others_reach(self, peer: PeerId) -> bool:
        """Whether any of a few helpers gets an answer from a peer."""
        asked: dict[int, asyncio.Future[bool]] = {}
        for helper in self._core.helpers(peer, NUM_HELPERS):
            link = self._links.get(helper, CONTROL)
            if link is not None:
                self._num_asked += 1
                asked[self._num_asked] = asyncio.get_running_loop().create_future()
                send(link, Probe(number=self._num_asked, about=peer))
        self._asked.update(asked)
        try:
            return await _any_true(asked.values(), PING_CAP_S * self._core.detector.slowness)
        finally:
            for number in asked:
                del self._asked[number]

    def on_probed(self, probed: Probed) -> None:
        """A helper's answer; one that nobody waits for any more is dropped."""
        asked = self._asked.get(probed.number)
        if asked is not None and not asked.done():
            asked.set_result(probed.is_alive)

    async def help(self, link: Link, probe: Probe) -> None:
        """Try a peer for somebody who gets no answer from it; only one whom we know."""
        peer = probe.about
        is_known = self._core.members.addresses(peer) or self._links.get(peer, CONTROL)
        if not is_known or self._num_helped >= MAX_HELPED:
            return
        self._num_helped += 1
        try:
            is_alive = await self.reaches(peer)
            send(link, Probed(number=probe.number, is_alive=is_alive))
            await self.let_go(peer)
        except P2PNodeError as error:  # our own network is gone
            log.debug("no help: peer=%s error=%s", peer.short, error)
        finally:
            self._num_helped -= 1

    async def let_go(self, peer: PeerId) -> None:
        """Keep no link to one who is not our neighbour."""
        if peer not in self._core.members.neighbours:
            await self._links.release(peer)

    async def _ping(self, link: Link, opening: Sync | None) -> float:
        """The round trip; raises PeerTimeout, or what ended the link."""
        clock = asyncio.get_running_loop().time
        usual_s = self._core.vivaldi.rtt_s(link.peer) or PING_CAP_S / PING_RTTS
        wait_s = min(max(PING_FLOOR_S, PING_RTTS * usual_s), PING_CAP_S)
        wait_s *= self._core.detector.slowness
        began = clock()
        answer = link.ping()
        if opening is not None:
            send(link, opening)
        await asyncio.wait([answer], timeout=wait_s)
        if not answer.done() and clock() - began > wait_s + STALL_S:
            await asyncio.wait([answer], timeout=wait_s)
        if not answer.done():
            raise PeerTimeout(link.peer, f"no answer to a ping for {wait_s:g} s")
        if answer.cancelled():
            raise link.error or PeerLost(link.peer, "the link is gone")
        return answer.result()


async def _any_true(answers: Iterable[asyncio.Future[bool]], timeout_s: float) -> bool:
    """Whether one of them says yes in time; when all say no, that is known at once."""
    clock = asyncio.get_running_loop().time
    waiting = set(answers)
    give_up_at = clock() + timeout_s
    while waiting and clock() < give_up_at:
        done, waiting = await asyncio.wait(
            waiting, timeout=give_up_at - clock(), return_when=asyncio.FIRST_COMPLETED
        )
        if any(answer.result() for answer in done):
            return True
    return False


def send(link: Link, message: object) -> None:
    """Send on a link that may just have ended: that is told elsewhere."""
    try:
        link.send(message)
    except PeerLost as error:
        log.debug("not sent: peer=%s error=%s", link.peer.short, error)
