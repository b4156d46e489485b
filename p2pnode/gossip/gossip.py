"""Gossip over control links: carries the messages of `core.Core`, and runs its clock.

About once per second a participant turns to its next neighbour: a ping, which measures the round
trip and shows that it lives, and an exchange of what both lack. When there is no answer, helpers
are asked to try; when they get none either, the neighbour is suspected.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from p2pnode.errors import P2PNodeError, PeerError, PeerMisbehaved
from p2pnode.gossip.core import PERIOD_S, Core
from p2pnode.gossip.digest import Sign
from p2pnode.gossip.messages import Probe, Probed, Sync
from p2pnode.gossip.prober import Prober, send
from p2pnode.net.link import Link
from p2pnode.net.links import Links
from p2pnode.tasks import Tasks
from p2pnode.types import Coordinate, Health, PeerHealth, PeerId, SwarmView
from p2pnode.wire.messages import CONTROL

log = logging.getLogger(__name__)

TICK_S = 0.5
JITTER = 0.2
MAX_NEIGHBOURS = 24
MAX_CLIENT_NEIGHBOURS = 4
NUM_INTRODUCTIONS = 3
READ_EVERY_S = 20.0
READ_PER_PEER_S = 0.3
"""The directory is read more seldom where it is large."""
PROBE_COST = 4.0
SHUN_S = 60.0

Members = Callable[[], Awaitable[SwarmView]]
OnChange = Callable[[PeerId, PeerHealth], None]


class Gossip:
    """One participant's part in gossip; the `LinkEvents` of control links.

    peer, sign: who we are; ``sign`` None is a client, who listens, pings and tells nothing
    members: reads the directory
    describe: our health now, without sequence, time and coordinate
    on_change: told of a peer that died, revived or started to drain
    """

    def __init__(
        self,
        peer: PeerId,
        sign: Sign | None,
        *,
        members: Members,
        wall_clock: Callable[[], float],
        describe: Callable[[], Health] | None = None,
        on_change: OnChange | None = None,
        rng: random.Random | None = None,
        max_neighbours: int | None = None,
    ) -> None:
        usual = MAX_CLIENT_NEIGHBOURS if sign is None else MAX_NEIGHBOURS
        # Seeded by the key: different at each peer, the same in each run of a scenario.
        self._rng = rng or random.Random(peer)
        self._core = Core(peer, sign, self._rng, max_neighbours=max_neighbours or usual)
        self._members = members
        self._wall_clock = wall_clock
        self._describe = describe
        self._on_change = on_change
        self._links: Links | None = None
        self._prober: Prober
        self._tasks = Tasks()
        self._meeting: set[PeerId] = set()
        self._doubted: set[PeerId] = set()

    # --- what the rest of the program asks

    def snapshot(self) -> Mapping[PeerId, PeerHealth]:
        """What is known of each peer; those of which nothing is known are missing."""
        return self._core.known.snapshot()

    @property
    def doubted(self) -> frozenset[PeerId]:
        """Who does not answer us at the moment, before it is settled whether that is suspicious."""
        return frozenset(self._doubted)

    def rtt_s(self, peer: PeerId) -> float | None:
        """The median of the last round trips measured to a peer."""
        return self._core.vivaldi.rtt_s(peer)

    @property
    def coordinate(self) -> Coordinate:
        """Where we are in network space."""
        return self._core.vivaldi.coordinate

    def publish(self) -> None:
        """Tell our health now, whether that is due or not: we start to drain, say."""
        self._tell(at_once=True)

    async def run(self, links: Links) -> None:
        """Take part until cancelled."""
        async with self._tasks as tasks:
            self._links, self._prober = links, Prober(self._core, links)
            try:
                tasks.start(self._read_members(), name="gossip-members")
                tasks.start(self._ticks(), name="gossip-ticks")
                tasks.start(self._rounds(), name="gossip-rounds")
                await tasks.wait()
            finally:
                self._links = None  # nothing is started any more

    # --- events of control links

    def on_message(self, link: Link, message: Any) -> None:
        """Take a message of gossip (`LinkEvents`); anything else ends the link."""
        if not isinstance(message, Sync | Probe | Probed):
            raise PeerMisbehaved(link.peer, f"sent a {type(message).__name__} on control")
        if self._links is None:
            return
        try:
            self._dispatch(link, message)
        except PeerMisbehaved as error:
            log.warning("peer shunned: peer=%s error=%s for_s=%.0f", link.peer.short, error, SHUN_S)
            self._links.shun(link.peer, SHUN_S)
            raise

    def on_lost(self, link: Link, error: PeerError) -> None:
        """A control link has ended: if that was no good-bye, look at once (`LinkEvents`)."""
        is_neighbour = link.peer in self._core.members.neighbours
        if self._links is not None and is_neighbour and not isinstance(error, PeerMisbehaved):
            self._doubted.add(link.peer)
            self._start_meeting(link.peer)

    def _dispatch(self, link: Link, message: Sync | Probe | Probed) -> None:
        now = asyncio.get_running_loop().time()
        match message:
            case Sync():
                answer = self._core.receive(link.peer, message, now, self._wall_clock())
                if answer is not None:
                    send(link, answer)
                self._report()
            case Probe():
                if self._core.guard.allows(link.peer, now, PROBE_COST):
                    self._tasks.start(self._prober.help(link, message), name="gossip-help")
            case Probed():
                self._prober.on_probed(message)

    # --- loops

    async def _read_members(self) -> None:
        is_first = True
        while True:
            try:
                view = await self._members()
                self._core.announce({a.peer: a.addresses for a in view.announcements})
                for _ in range(NUM_INTRODUCTIONS if is_first else 0):
                    self._turn()  # introduce ourselves without waiting for a round
                is_first = False
            except P2PNodeError as error:
                log.debug("members not read: error=%s", error)
            pause_s = max(READ_EVERY_S, READ_PER_PEER_S * self._core.num_peers)
            await asyncio.sleep(self._jittered(pause_s))

    async def _ticks(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due_at = clock() + TICK_S
            await asyncio.sleep(TICK_S)
            if clock() - due_at > TICK_S:
                self._core.detector.doubted()
                continue  # what has come meanwhile is read first
            self._core.tick(clock(), self._wall_clock())
            self._tell(at_once=False)
            self._report()
            self._check_clock(clock())

    def _check_clock(self, now: float) -> None:
        ahead_s = self._core.clock_watch.judge(now)
        if ahead_s is not None:
            what = "others refuse our health; set this machine's clock (NTP)"
            log.warning("clock wrong: ahead_s=%.0f consequence=%s", ahead_s, what)

    async def _rounds(self) -> None:
        while True:
            await asyncio.sleep(self._jittered(PERIOD_S))
            self._turn()

    def _turn(self) -> None:
        partner, dropped = self._core.next_partner(asyncio.get_running_loop().time())
        for peer in dropped:
            if self._links is not None:
                self._tasks.start(self._links.release(peer), name="gossip-release")
        if partner is not None:
            self._start_meeting(partner)

    def _start_meeting(self, peer: PeerId) -> None:
        if peer not in self._meeting:
            self._meeting.add(peer)
            self._tasks.start(self._meet(peer), name=f"gossip-{peer.short}")

    def _jittered(self, seconds: float) -> float:
        return seconds * self._rng.uniform(1 - JITTER, 1 + JITTER)

    # --- one meeting

    async def _meet(self, peer: PeerId) -> None:
        """Ping a neighbour and exchange news; find out what is wrong when it does not answer."""
        try:
            if not await self._prober.reaches(peer, self._core.opening()):
                self._doubted.add(peer)
                await self._doubt(peer)
            self._report()
            await self._prober.let_go(peer)
        except P2PNodeError as error:  # our own network is gone: others will say so
            log.debug("no meeting: peer=%s error=%s", peer.short, error)
        finally:
            self._meeting.discard(peer)
            self._doubted.discard(peer)

    async def _doubt(self, peer: PeerId) -> None:
        """Let others try; when nobody gets an answer, say so."""
        if await self._prober.others_reach(peer):
            return self._core.vouched(peer)
        accusation = self._core.failed(peer, asyncio.get_running_loop().time())
        if accusation is not None:
            self._push(accusation)

    # --- telling

    def _tell(self, *, at_once: bool) -> None:
        if self._describe is None:
            return
        now = asyncio.get_running_loop().time()
        news = self._core.tell(self._describe(), now, self._wall_clock(), at_once=at_once)
        if news is not None:
            self._push(news)

    def _push(self, news: Sync) -> None:
        """To all neighbours to whom there is a link."""
        for peer in self._core.members.neighbours:
            link = self._links.get(peer, CONTROL) if self._links is not None else None
            if link is not None:
                send(link, news)

    def _report(self) -> None:
        for peer, health in self._core.known.take_changes():
            what = "draining" if health.health.is_draining else health.liveness
            log.debug("peer changed: peer=%s now=%s", peer.short, what)
            if self._on_change is not None:
                self._on_change(peer, health)
