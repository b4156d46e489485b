"""Finding a swarm, and finding it again. The rules:

- an explicit ``--join`` is all we try at first, and it failing is an error;
- otherwise we try the nodes running in this home, the last good peers and the public list, all at
  once; when none answers, a node is its own swarm and a client gives up;
- one that answers is enough: the others may be dead or frozen without our waiting for them;
- a node keeps trying whom it has not met, so that islands merge, and one that has lost everybody
  finds those again whom it knew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, runtime_checkable

from p2pnode.dht.peers_file import FILE_NAME, GoodPeer, save_peers
from p2pnode.errors import JoinFailed, LocalError, P2PNodeError
from p2pnode.swarm.refusals import raise_not_member
from p2pnode.swarm.sources import JoinSources, add
from p2pnode.types import PeerId

log = logging.getLogger(__name__)

GRACE_S = 0.25
"""How long the others may still answer after the first one did."""
EXPLORE_WITHIN_S = 3.0
RETRY_S = 2.0
MAX_RETRY_S = 30.0
MAX_PEER_RETRY_S = 120.0
"""Of one that has not answered for long, while others do."""
SAVE_INTERVAL_S = 60.0
MAX_CANDIDATES = 128


@runtime_checkable
class Meeting(Protocol):
    """What joining needs of a directory."""

    @property
    def peers(self) -> tuple[PeerId, ...]:
        """The nodes that we know."""
        ...

    def addresses_of(self, peer: PeerId) -> tuple[str, ...]:
        """Where a node is; may be empty."""
        ...

    async def meet(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """Get to know a node; raises PeerError, or JoinFailed when its clock and ours differ."""
        ...

    async def explore(self) -> None:
        """Find the nodes around us; raises JoinFailed when it takes too long."""
        ...


class Joiner:
    """Joins a swarm and keeps us in it."""

    def __init__(
        self,
        meeting: Meeting,
        sources: JoinSources,
        *,
        own: PeerId,
        wall_clock: Callable[[], float],
        met: Callable[[], None] = lambda: None,
    ) -> None:
        """``met`` is called when new nodes were met after joining: announce, so they know."""
        self._meeting = meeting
        self._sources = sources
        self._own = own
        self._wall_clock = wall_clock
        self._met = met
        self._known: dict[PeerId, tuple[str, ...]] = {}
        self._tries: dict[PeerId, tuple[float, float]] = {}
        """Of strangers that did not answer: when to try again, and how long to wait after that."""
        self._saved_at = float("-inf")

    async def join(self, *, may_found: bool) -> bool:
        """Find a swarm; False when there is none and we are the first of our own.

        may_found: whether to be that first one; else none is an error, as it always is with an
        explicit ``--join``

        Raises JoinFailed, also when the clock of the only ones that answered differs from ours,
        BadRequest on an explicit address without a peer id, and DaemonDied.
        """
        candidates = self._candidates()
        errors = await self._meet_first(candidates)
        if self._meeting.peers:
            await self._explore()
            self._remember()
            log.info("joined: nodes=%d", len(self._meeting.peers))
            return True
        for error in errors:
            if isinstance(error, (JoinFailed, LocalError)):
                raise error
        raise_not_member(errors, is_told=bool(self._sources.explicit) or not may_found)
        tried = f"none of {len(candidates)} known nodes answered" if candidates else "none is known"
        if self._sources.explicit:
            what = f"no node given with --join answered: {_shown(errors)}"
            raise JoinFailed(what, tuple(errors))
        if not may_found:
            what = f"no swarm found: {tried}; name a node with --join ADDRESS"
            raise JoinFailed(what, tuple(errors))
        log.info("no swarm found, starting one: tried=%d", len(candidates))
        return False

    async def run(self) -> None:
        """Keep meeting nodes that we have not met and remember the good ones, until cancelled."""
        retry_s = RETRY_S
        try:
            while True:
                if await self._meet_strangers():
                    retry_s = RETRY_S
                self._remember()
                if await self._lose_nobody_for(retry_s):
                    retry_s = min(2 * retry_s, MAX_RETRY_S)
                else:
                    retry_s = RETRY_S
        finally:
            self._save()

    async def _lose_nobody_for(self, seconds: float) -> bool:
        """Wait, but not on when nodes are lost or none is there: it may be us who were away."""
        before, left_s = set(self._meeting.peers), seconds
        while left_s > 0:
            wait_s = min(left_s, RETRY_S)
            await asyncio.sleep(wait_s)
            left_s -= wait_s
            if not self._meeting.peers or before - set(self._meeting.peers):
                return False
        return True

    # --- whom to try

    def _candidates(self) -> dict[PeerId, tuple[str, ...]]:
        candidates = self._sources.candidates()
        add(candidates, self._known)
        candidates.pop(self._own, None)
        return dict(list(candidates.items())[:MAX_CANDIDATES])

    # --- meeting them

    async def _meet_first(self, candidates: Mapping[PeerId, tuple[str, ...]]) -> list[P2PNodeError]:
        """Meet all at once; when one answers, the others have `GRACE_S` left."""
        errors: list[P2PNodeError] = []
        try:
            async with asyncio.timeout(None) as deadline, asyncio.TaskGroup() as group:
                for peer, addresses in candidates.items():
                    group.create_task(
                        self._meet(peer, addresses, errors, deadline), name=f"meet {peer.short}"
                    )
        except TimeoutError:
            log.debug("joined without waiting for all: tried=%d", len(candidates))
        return errors

    async def _meet(
        self,
        peer: PeerId,
        addresses: tuple[str, ...],
        errors: list[P2PNodeError],
        deadline: asyncio.Timeout | None,
    ) -> None:
        try:
            await self._meeting.meet(peer, addresses)
        except P2PNodeError as error:
            log.debug("not met: peer=%s error=%s", peer.short, error)
            errors.append(error)
            return
        if deadline is not None and deadline.when() is None:
            deadline.reschedule(asyncio.get_running_loop().time() + GRACE_S)

    async def _meet_strangers(self) -> bool:
        """Try everybody whom we should know and do not; whether anybody is new."""
        before = set(self._meeting.peers)
        strangers = {
            peer: addresses
            for peer, addresses in self._candidates().items()
            if peer not in before and self._is_due(peer)
        }
        errors: list[P2PNodeError] = []
        async with asyncio.TaskGroup() as group:
            for peer, addresses in strangers.items():
                group.create_task(
                    self._meet(peer, addresses, errors, None), name=f"meet {peer.short}"
                )
        for error in errors:
            if isinstance(error, JoinFailed):
                log.warning("a node cannot be met: error=%s", error)
        self._note_tries(strangers)
        if len(errors) == len(strangers):
            return False
        await self._explore()
        num_new = len(set(self._meeting.peers) - before)
        log.info("met nodes: new=%d nodes=%d", num_new, len(self._meeting.peers))
        self._met()
        return True

    def _is_due(self, peer: PeerId) -> bool:
        """Whether to try this stranger now; those who know nobody try all."""
        at, _ = self._tries.get(peer, (0.0, 0.0))
        return not self._meeting.peers or asyncio.get_running_loop().time() >= at

    def _note_tries(self, tried: Iterable[PeerId]) -> None:
        """Those that were met begin anew, the others wait longer each time."""
        met, now = set(self._meeting.peers), asyncio.get_running_loop().time()
        self._tries = {peer: each for peer, each in self._tries.items() if peer in self._known}
        for peer in tried:
            _, wait_s = self._tries.get(peer, (now, RETRY_S))
            if peer in met:
                self._tries.pop(peer, None)
            else:
                self._tries[peer] = (now + wait_s, min(2 * wait_s, MAX_PEER_RETRY_S))

    async def _explore(self) -> None:
        try:
            async with asyncio.timeout(EXPLORE_WITHIN_S):
                await self._meeting.explore()
        except (TimeoutError, JoinFailed) as error:
            log.debug("exploring took too long: error=%r", str(error))

    # --- whom to remember

    def _remember(self) -> None:
        for peer in self._meeting.peers:
            addresses = self._meeting.addresses_of(peer)
            if addresses:
                self._known.pop(peer, None)
                self._known[peer] = addresses
        for peer in list(self._known)[: max(0, len(self._known) - MAX_CANDIDATES // 2)]:
            del self._known[peer]
        if self._wall_clock() - self._saved_at >= SAVE_INTERVAL_S:
            self._save()

    def _save(self) -> None:
        now = self._saved_at = self._wall_clock()
        known = set(self._meeting.peers)
        good = [GoodPeer(peer, at, now) for peer, at in self._known.items() if peer in known]
        if good:
            save_peers(self._sources.home / FILE_NAME, good)


def _shown(errors: Iterable[P2PNodeError]) -> str:
    return "; ".join(str(error) for error in errors)[:500] or "only this node itself was named"
