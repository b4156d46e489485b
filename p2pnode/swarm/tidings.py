"""Passing news of a private swarm on: who has used an invite, who is in it no more.

Members ask each other, on streams of their own through the gate, so that bootstrap nodes take part,
too. An exchange goes both ways and is repeated until both have heard all. Who hears news passes it
on at once to a few others; from time to time everybody asks somebody, so what was missed comes
later. What follows from news, links that are cut, follows at once, and once per second from the
clock: grants expire.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from typing import TypeVar

from p2pnode.errors import BadWarrant, P2PNodeError, WireError
from p2pnode.net import questions
from p2pnode.net.gate import Gate
from p2pnode.net.identity import peer_of
from p2pnode.net.transport import ByteStream, Transport
from p2pnode.swarm.news_file import NewsFile
from p2pnode.tasks import Tasks
from p2pnode.trust.guard import Guard
from p2pnode.trust.news import LOG_ID_BYTES, MAX_ITEM_BYTES
from p2pnode.types import PeerId
from p2pnode.wire.codec import message

log = logging.getLogger(__name__)

TIDINGS = "/p2pnode/tidings/1"
SERVE_WITHIN_S = 3.0
ASK_WITHIN_S = 3.0
LOOK_EVERY_S = 1.0
ASK_EVERY_S = 15.0
FANOUT = 6
MAX_ITEMS = 6
"""In one message; `net.questions` bounds its size."""
MAX_TURNS = 1024
MAX_CURSORS = 256

T = TypeVar("T")


@message("tidings")
class Tidings:
    """Both ways: some of what I have heard, and from where on I want to hear what you have."""

    log_id: bytes
    """Of whoever is to answer, as far as known; of the sender in an answer."""
    at: int
    """How many of its items are known; in an answer: with those that are in it."""
    num_items: int
    """How many there are, in an answer."""
    items: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if len(self.log_id) not in (0, LOG_ID_BYTES) or len(self.items) > MAX_ITEMS:
            raise ValueError(f"tidings of more than {MAX_ITEMS} items")
        if any(len(item) > MAX_ITEM_BYTES for item in self.items):
            raise ValueError(f"an item of more than {MAX_ITEM_BYTES} bytes")


class Teller:
    """Hears and tells news, and cuts off whom it concerns."""

    def __init__(
        self, transport: Transport, gate: Gate, guard: Guard, *, file: NewsFile | None = None
    ) -> None:
        self._transport = transport
        self._gate = gate
        self._guard = guard
        self._file = file
        self._stamp = file.stamp() if file else (0, 0)
        self._cursors: OrderedDict[PeerId, tuple[bytes, int]] = OrderedDict()
        """How much of whose log we know."""
        self._told: OrderedDict[PeerId, tuple[bytes, int]] = OrderedDict()
        """How much of ours who knows."""
        self._exchanging: set[PeerId] = set()
        self._greeted_at: OrderedDict[PeerId, float] = OrderedDict()
        self._rng = random.Random(transport.peer)
        self._tasks = Tasks()

    async def run(self) -> None:
        """Take part until cancelled."""
        clock = asyncio.get_running_loop().time
        guard, ask_at = self._guard, clock()
        async with self._tasks:
            guard.on_claim, guard.on_other_news = self._heard, self._met
            try:
                await self._transport.serve(TIDINGS, self._handle)
                self._save()  # our own claim
                while True:
                    await asyncio.sleep(LOOK_EVERY_S)
                    self._look()
                    if clock() >= ask_at:
                        ask_at = clock() + self._rng.uniform(0.5, 1.5) * ASK_EVERY_S
                        self._spread(1)
            finally:
                guard.on_claim, guard.on_other_news = _nothing, _nothing

    async def tell_all(self) -> int:
        """Exchange news with all members that we have met; how many took part."""
        async with asyncio.TaskGroup() as group:
            peers = await self._connected()
            tasks = [group.create_task(self._exchange(peer), name="tell") for peer in peers]
        return sum(task.result() for task in tasks)

    # --- what follows

    def _look(self) -> None:
        """Once per second: what other processes of the home have heard, and whose time is up."""
        now = self._guard.now()
        self._guard.news.forget_expired(now)
        self._gate.cut_lapsed()
        if self._file is not None and self._file.stamp() != self._stamp:
            self._stamp = self._file.stamp()
            if self._file.merge_into(self._guard.news, now=now):
                self._pass_on()

    def _take(self, teller: PeerId, items: tuple[bytes, ...]) -> None:
        is_new = False
        for item in items:
            try:
                is_new |= self._guard.news.add(item, self._guard.now())
            except BadWarrant as error:
                log.debug("news not believed: peer=%s error=%s", teller.short, error)
        if is_new:
            log.info("heard news of the swarm: peer=%s", teller.short)
            self._heard()

    def _heard(self) -> None:
        self._save()
        self._pass_on()

    def _pass_on(self) -> None:
        if self._guard.news.is_revoked(self._guard.warrant):
            log.warning("an admin has revoked this member: others do not let us in any more")
        self._gate.cut_lapsed()
        self._spread(FANOUT)

    def _met(self, key: bytes) -> None:
        """A member has greeted us that has heard other things than we."""
        peer, now = peer_of(key), asyncio.get_running_loop().time()
        if now >= self._greeted_at.get(peer, now - ASK_EVERY_S) + ASK_EVERY_S:
            _note(self._greeted_at, peer, now)
            self._tasks.start(self._exchange(peer), name=f"tidings-{peer.short}")

    def _save(self) -> None:
        if self._file is not None:
            self._file.save(self._guard.news, now=self._guard.now())
            self._stamp = self._file.stamp()

    # --- telling

    async def _connected(self) -> list[PeerId]:
        """The nodes among the members to whom there is a connection; without any, the others."""
        connected = sorted(await self._gate.observed())
        nodes = [peer for peer in connected if self._gate.admits(peer, True)]
        return nodes or [peer for peer in connected if self._gate.admits(peer)]

    def _spread(self, fanout: int) -> None:
        self._tasks.start(self._tell_some(fanout), name="tidings")

    async def _tell_some(self, fanout: int) -> None:
        try:
            peers = await self._connected()
        except P2PNodeError as error:  # the network is gone: others will say so
            log.debug("no tidings: error=%s", error)
            return
        async with asyncio.TaskGroup() as group:
            for peer in self._rng.sample(peers, min(fanout, len(peers))):
                group.create_task(self._exchange(peer), name=f"tidings-{peer.short}")

    async def _exchange(self, peer: PeerId) -> bool:
        """Ask and tell until both know all; whether the other one took part."""
        if peer in self._exchanging:
            return True
        self._exchanging.add(peer)
        try:
            for _ in range(MAX_TURNS):
                async with asyncio.timeout(ASK_WITHIN_S):
                    is_over = await self._turn(peer)
                if is_over:
                    return True
        except (TimeoutError, P2PNodeError) as error:
            log.debug("no tidings: peer=%s error=%r", peer.short, str(error))
        finally:
            self._exchanging.discard(peer)
        return False

    async def _turn(self, peer: PeerId) -> bool:
        """One question and its answer; whether nothing is left to ask or tell."""
        log_id, at = self._cursors.get(peer, (b"", 0))
        news, ours, told = self._guard.news, *self._to_tell(peer)
        question = Tidings(log_id=log_id, at=at, num_items=0, items=ours)
        answer = await questions.ask(self._transport, peer, TIDINGS, question, Tidings)
        _note(self._told, peer, (news.log_id, told + len(ours)))
        _note(self._cursors, peer, (answer.log_id, answer.at))
        is_all_told = told + len(ours) >= len(news)
        self._take(peer, answer.items)
        return is_all_told and answer.at >= answer.num_items

    def _to_tell(self, peer: PeerId) -> tuple[tuple[bytes, ...], int]:
        """What a peer should hear next, and how much of ours it has been told."""
        log_id, told = self._told.get(peer, (b"", 0))
        if log_id != self._guard.news.log_id:
            told = 0
        return self._guard.news.since(told)[:MAX_ITEMS], told

    # --- being asked

    async def _handle(self, stream: ByteStream) -> None:
        await questions.answer(stream, self._reply, SERVE_WITHIN_S)

    async def _reply(self, asker: PeerId, question: object) -> Tidings:
        if not isinstance(question, Tidings):
            raise WireError(f"expected Tidings, got {type(question).__name__}")
        self._take(asker, question.items)
        news = self._guard.news
        at = question.at if question.log_id == news.log_id else 0
        items = news.since(at)[:MAX_ITEMS]
        return Tidings(log_id=news.log_id, at=at + len(items), num_items=len(news), items=items)


def _note(places: OrderedDict[PeerId, T], peer: PeerId, place: T) -> None:
    places[peer] = place
    places.move_to_end(peer)
    if len(places) > MAX_CURSORS:
        places.popitem(last=False)


def _nothing(*_: object) -> None:
    """Nobody wants to know any more."""
