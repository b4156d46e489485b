"""A transport that also reaches peers which cannot be dialled, and knows whether we can be.

Rules:
- two peers are asked to dial us back, those first that are not near; when no one can, we announce
  no address, and otherwise those which work;
- who cannot be dialled is asked, through a peer that both are connected to, to dial us;
- when we cannot be dialled either, both dial at once, where that peer sees them over QUIC;
- when that fails, too, it is known within `PUNCH_WITHIN_S` (for a while at once), and their client
  carries (see ``pipeline``).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from p2pnode.errors import DaemonDied, P2PNodeError, PeerLost, PeerTimeout
from p2pnode.net import seen
from p2pnode.net.ground import Ground
from p2pnode.net.questions import ask
from p2pnode.net.reach_helpers import FEW_HELPERS, MAX_HELPERS, Helpers
from p2pnode.net.reach_messages import REACH, CallBack, CalledBack
from p2pnode.net.reach_server import ReachServer
from p2pnode.net.transport import ByteStream, StreamHandler
from p2pnode.tasks import Tasks
from p2pnode.types import PeerId

log = logging.getLogger(__name__)

NUM_ASKED = 2
MAX_TRIED = 6
CALL_BACK_WITHIN_S = 2.5
CHECK_EVERY_S = 180.0
RETRY_S = 2.0
POLL_S = 15.0
"""How often the machine's interfaces are looked at."""
PATIENCE_S = 0.5
"""A dial that takes longer is helped: the other side is asked to dial, too."""
HELP_WITHIN_S = 3.0
REFUSED_WITHIN_S = 1.0
"""Help after a dial that failed at once: most likely the peer is gone."""


class Reach:
    """A `Transport` over one that only dials. ``async with`` answers what others ask of us.

    kept: addresses that are announced at the operator's word, whatever others say
    on_change: told that `addresses` are others now
    """

    def __init__(
        self,
        ground: Ground,
        *,
        kept: tuple[str, ...] = (),
        is_client: bool = False,
        on_change: Callable[[], None] = lambda: None,
        rng: random.Random | None = None,
    ) -> None:
        self._ground = ground
        self._kept = {address.partition("/p2p/")[0] for address in kept}
        self._is_client = is_client
        self._on_change = on_change
        # Seeded by the key: different at each peer, the same in each run of a scenario.
        self._rng = rng or random.Random(ground.peer)
        self._helpers = Helpers(ground, self._rng)
        self._reached: frozenset[str] | None = None
        self._num_doubts = 0
        self._tasks = Tasks()
        self._server = ReachServer(ground, self._tasks)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        await self._ground.serve(REACH, self._server.handle)
        self._tasks.start(self._run(), name="reach")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        await self._tasks.__aexit__(kind, error, trace)

    @property
    def p2p(self) -> Any:
        """See `Ground.p2p`."""
        return self._ground.p2p

    @property
    def peer(self) -> PeerId:
        """Our own id."""
        return self._ground.peer

    @property
    def is_dialable(self) -> bool | None:
        """Whether others can dial us; None while nobody has tried."""
        return None if self._reached is None else bool(self._reached)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where others can dial us, best first; none for a client and when nobody can."""
        if self._is_client:
            return ()
        ours = self._ground.listens_at()
        kept = [address for address in ours if address.partition("/p2p/")[0] in self._kept]
        if self._reached is None:
            return ours
        if not self._reached:
            return tuple(kept)
        working = seen.as_seen(self.peer, ours, sorted(self._reached))
        return tuple(dict.fromkeys((*kept, *working, *seen.private(ours))))

    async def connect(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """Dial, or get help (see `Helpers`); raises PeerLost, PeerTimeout or DaemonDied.

        For a peer without addresses help is asked at once, for one that is slow to answer after
        `PATIENCE_S`; what comes first counts.
        """
        if not addresses:
            if peer not in await self._ground.observed():
                await self._be_helped(peer, HELP_WITHIN_S, MAX_HELPERS)
            return
        async with Tasks() as tasks:
            dial = tasks.start(_failure(self._ground.connect(peer, addresses)), name="dial")
            await asyncio.wait({dial}, timeout=PATIENCE_S)
            within_s = HELP_WITHIN_S
            if dial.done():
                if dial.result() is None:
                    return
                within_s = REFUSED_WITHIN_S
            most = MAX_HELPERS if len(seen.private(addresses)) == len(addresses) else FEW_HELPERS
            help_ = tasks.start(_failure(self._be_helped(peer, within_s, most)), name="help")
            if await _one_succeeds({dial, help_}):
                return
        raise dial.result() or PeerLost(peer, "cannot be reached")

    async def open_stream(self, peer: PeerId, protocol: str) -> ByteStream:
        """See `Transport.open_stream`."""
        return await self._ground.open_stream(peer, protocol)

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        """See `Transport.serve`."""
        await self._ground.serve(protocol, handler)

    async def protect(self, peer: PeerId, is_protected: bool) -> None:
        """See `Transport.protect`."""
        await self._ground.protect(peer, is_protected)

    async def wait_closed(self) -> None:
        """See `Transport.wait_closed`."""
        await self._ground.wait_closed()

    # --- can we be dialled?

    async def check(self) -> None:
        """Ask two peers to dial us back; returns within some `CALL_BACK_WITHIN_S`.

        Without an answer nothing changes. That we cannot be dialled any more is believed when two
        checks in a row say so. Raises DaemonDied.
        """
        before = self.addresses
        ours = self._ground.listens_at()
        answers = await self._answers(CallBack(addresses=_few(ours))) if ours else []
        if not answers:
            return
        reached = frozenset(host for each in answers for host in each)
        if not reached and self._reached:
            self._num_doubts += 1
            if self._num_doubts < 2:
                return
        self._num_doubts = 0
        self._reached = reached
        if before != self.addresses:
            log.info("addresses changed: dialable=%s", self.is_dialable)
            self._on_change()

    async def _answers(self, question: CallBack) -> list[tuple[str, ...]]:
        """What up to `NUM_ASKED` peers say, asked at once; the next ones when some do not."""
        observed = await self._ground.observed()
        peers = sorted(filter(self._ground.may_ask, observed))
        self._rng.shuffle(peers)
        far = [peer for peer in peers if not seen.is_near(seen.hosts_of(observed[peer]))]
        left = (far or peers)[:MAX_TRIED]
        answers: list[tuple[str, ...]] = []
        while left and len(answers) < NUM_ASKED:
            num_asked = NUM_ASKED - len(answers)
            asked, left = left[:num_asked], left[num_asked:]
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._call_back(each, question)) for each in asked]
            answers += [found for task in tasks if (found := task.result()) is not None]
        return answers

    async def _call_back(self, asked: PeerId, question: CallBack) -> tuple[str, ...] | None:
        try:
            async with asyncio.timeout(CALL_BACK_WITHIN_S):
                answer = await ask(self._ground, asked, REACH, question, CalledBack)
        except (TimeoutError, P2PNodeError) as error:
            log.debug("not called back: peer=%s error=%r", asked.short, str(error))
            return None
        hosts = seen.hosts_of(answer.reached)
        return tuple(hosts)[:NUM_ASKED]

    async def _run(self) -> None:
        """Check again from time to time, and when the machine's addresses change."""
        clock = asyncio.get_running_loop().time
        wait_s, checked_at, ours = RETRY_S, clock(), self._ground.listens_at()
        while True:
            await asyncio.sleep(min(wait_s, POLL_S))
            if clock() - checked_at < wait_s and ours == self._ground.listens_at():
                continue
            try:
                await self.check()
            except P2PNodeError as error:  # the network is gone: others will say so
                log.debug("not checked: error=%s", error)
            is_settled = self._reached is not None and not self._num_doubts
            wait_s = CHECK_EVERY_S if is_settled else min(2 * wait_s, CHECK_EVERY_S / 9)
            checked_at, ours = clock(), self._ground.listens_at()

    # --- whom we cannot dial

    async def _be_helped(self, peer: PeerId, within_s: float, most: int) -> None:
        """Have the peer dial us, or punch, or both; raises PeerLost, PeerTimeout, DaemonDied.

        Who can be dialled need not punch. While nobody knows whether we can, both are tried.
        """
        ours = self._ground.listens_at()
        is_hidden = self._reached == frozenset()
        offered = seen.private(ours) if is_hidden else _few(ours)
        ways = []
        if offered:
            ways.append(self._helpers.bring(peer, offered, is_hidden=is_hidden, most=most))
        if not self._reached:
            ways.append(self._helpers.punch(peer, most=most))
        try:
            async with asyncio.timeout(within_s), Tasks() as tasks:
                tried = [tasks.start(_failure(way), name=f"help-{peer.short}") for way in ways]
                if await _one_succeeds(set(tried)):
                    return
        except TimeoutError as error:
            raise PeerTimeout(peer, f"nobody could help within {within_s:g} s") from error
        raise next(filter(None, (each.result() for each in reversed(tried))), None) or PeerLost(
            peer, "cannot be reached"
        )


def _few(ours: tuple[str, ...]) -> tuple[str, ...]:
    """One host's addresses: only the ports count; and what is private, for those at our side."""
    hosts = list(dict.fromkeys(seen.split_host(a)[0] for a in ours if seen.hosts_of([a])))
    first = tuple(a for a in ours if hosts and a.startswith(f"{hosts[0]}/"))
    return tuple(dict.fromkeys((*first, *seen.private(ours))))


async def _failure(work: Coroutine[Any, Any, None]) -> P2PNodeError | None:
    try:
        await work
    except DaemonDied:
        raise
    except P2PNodeError as error:
        return error
    return None


async def _one_succeeds(waiting: set[asyncio.Task[P2PNodeError | None]]) -> bool:
    """Return as soon as one of `_failure` has none; False when all have."""
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if any(task.result() is None for task in done):
            return True
    return False
