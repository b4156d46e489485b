"""A participant that measures: gossips, pings, and generates from token ids that it made up.

It needs no file of a model: what a session must know of one, announcements say.
"""

from __future__ import annotations

import asyncio
import logging
import os
import statistics
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from p2pnode.client.experience import Experience
from p2pnode.client.router import SwarmRouter
from p2pnode.doctor.measured import PROMPT_TOKENS, HopMeasured
from p2pnode.doctor.pings import Pings
from p2pnode.doctor.steps import Heard, Round
from p2pnode.errors import NoChain, P2PNodeError, PeerError, PromptTooLong
from p2pnode.gossip.gossip import READ_EVERY_S, Gossip
from p2pnode.net.link import Link
from p2pnode.net.links import Links
from p2pnode.pipeline.configure import Terms
from p2pnode.pipeline.roles import SessionLimits
from p2pnode.pipeline.session import ChainSession
from p2pnode.swarm.network import Joined
from p2pnode.swarm.view import SwarmReader
from p2pnode.tasks import Tasks
from p2pnode.types import Hop, ModelSpec, PeerHealth, PeerId, Sampling, SwarmView
from p2pnode.version import SOFTWARE
from p2pnode.wire.messages import SESSION_BYTES, Progress

log = logging.getLogger(__name__)

ROUND_TOKENS = 8
MAX_ROUNDS = 3
CONNECT_WITHIN_S = 3.5
HEARTBEAT_S = (0.25, 3.0)
"""More patient than a client: what is slow shall be measured, not given up."""
PATIENCE_S = 0.5
STEP_WITHIN_S = 5.0
LIMITS = SessionLimits(
    chunk_tokens=PROMPT_TOKENS,
    open_timeout_s=4.0,
    step_timeout_s=STEP_WITHIN_S,
    step_floor_s=2.0,
    mend_timeout_s=STEP_WITHIN_S,
    close_timeout_s=0.3,
    has_standbys=False,
)
HEALTH_WITHIN_S = 2.0
HEALTH_LOOK_S = 0.1
SMALL_IDS = 60
"""Token ids below are in every vocabulary."""


@dataclass(slots=True)
class Witness(Experience):
    """Keeps whom sessions blamed, and for what."""

    errors: list[PeerError] = field(default_factory=list)

    def blame(self, error: PeerError, view: SwarmView, now: float, *, is_linked: bool) -> None:
        """See `Experience.blame`."""
        self.errors.append(error)
        Experience.blame(self, error, view, now, is_linked=is_linked)


class Probe:
    """Measures through a network that was joined. ``async with`` owns its links and tasks.

    What it has found is there at any moment, also when it was cancelled: `rounds`, `reached`,
    `witness`, `failure`.
    """

    def __init__(self, joined: Joined, *, wall_clock: Callable[[], float]) -> None:
        self.rounds: list[Round] = []
        self.witness = Witness()
        self.failure: P2PNodeError | None = None
        """Why there is no chain, or none any more."""
        self._joined = joined
        self._wall_clock = wall_clock
        self._clock = asyncio.get_running_loop().time
        self._ages_s: dict[PeerId, float] = {}
        self._session: ChainSession | None = None
        self._stack = AsyncExitStack()
        self._links: Links
        self._pings: Pings
        self._tasks: Tasks
        self._gossip: Gossip
        self._reader: SwarmReader

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            joined = self._joined
            gossip = self._gossip = Gossip(
                joined.transport.peer,
                None,
                members=lambda: self._reader.view(max_age_s=READ_EVERY_S),
                wall_clock=self._wall_clock,
            )
            self._reader = SwarmReader(
                joined.directory,
                wall_clock=self._wall_clock,
                monotonic=self._clock,
                health=gossip.snapshot,
            )
            self._links = await stack.enter_async_context(
                Links(
                    joined.transport,
                    self,
                    software=SOFTWARE,
                    connect_timeout_s=CONNECT_WITHIN_S,
                    heartbeat=HEARTBEAT_S,
                    control_events=gossip,
                )
            )
            self._tasks = await stack.enter_async_context(Tasks())
            self._tasks.start(gossip.run(self._links), name="gossip")
            self._pings = Pings(self._links, self._tasks)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    # --- what was found

    async def view(self) -> SwarmView:
        """The swarm, read anew; raises JoinFailed."""
        return await self._reader.view(max_age_s=0.0)

    def known(self) -> SwarmView:
        """The last reading, and what gossip says now."""
        return self._reader.known()

    def reached(self) -> dict[PeerId, HopMeasured]:
        """What was measured of each peer that we connected to, without its steps."""
        layers = {a.peer: a.layers for a in self.known().announcements}
        return self._pings.measured(layers)

    @property
    def ahead_s(self) -> float | None:
        """How far this clock is ahead of the peers' (below 0: behind), as their healths are dated.

        None: nobody has told any. Health is told every ten seconds and more, and gets older on its
        way, but never younger: so a clock that is behind shows, and one that is ahead counts as
        right here. It cannot join.
        """
        ages = self._ages_s.values()
        return min(0.0, statistics.median_high(ages)) if ages else None

    # --- measuring

    async def hear_health(self, peers: set[PeerId]) -> None:
        """Wait a moment until gossip has told of these peers."""
        give_up_at = self._clock() + HEALTH_WITHIN_S
        while self._clock() < give_up_at:
            known = self._gossip.snapshot()
            self._note_ages(known.values())
            if peers <= known.keys():
                return
            await asyncio.sleep(HEALTH_LOOK_S)

    async def run(self, spec: ModelSpec) -> None:
        """Choose a chain, reach its hops, and generate, `MAX_ROUNDS` times; or note the failure."""
        router = self._router(spec)
        try:
            chain = await router.chain(PROMPT_TOKENS + ROUND_TOKENS)
            await self._reach(list(chain.hops), router)
            for number in range(MAX_ROUNDS):
                await self._round(spec, number)
                self._note_ages(self._gossip.snapshot().values())
                chain_now = self.rounds[-1].chain
                await self._reach(list(chain_now.hops) if chain_now else [], router)
        except (NoChain, PromptTooLong) as error:
            self.failure = error

    async def reach_hidden(self, hops: list[Hop]) -> dict[PeerId, bool]:
        """Whether peers that cannot be dialled are reached with the help of others."""

        async def reach(hop: Hop) -> bool:
            try:
                await self._links.control(hop.peer, hop.addresses)
            except PeerError as error:
                log.debug("not reached: error=%s", error)
                return False
            return True

        async with Tasks() as tasks:
            tried = {hop.peer: tasks.start(reach(hop), name="reach-hidden") for hop in hops}
            await tasks.wait()
        return {peer: task.result() for peer, task in tried.items()}

    async def _reach(self, hops: list[Hop], router: SwarmRouter) -> None:
        """Connect to those that are new, and ping them from now on."""
        for error in await self._pings.add(hops):
            router.blame(error)

    async def _round(self, spec: ModelSpec, number: int) -> None:
        """One session: a prompt that nobody has seen, and some tokens."""
        prompt = [
            1 + (17 * at * at + 7 * at + 13 * number) % SMALL_IDS for at in range(PROMPT_TOKENS)
        ]
        session = self._session = ChainSession(
            links=self._links,
            tasks=self._tasks,
            router=self._router(spec),
            limits=LIMITS,
            terms=Terms(
                session=os.urandom(SESSION_BYTES),
                spec=spec,
                sampling=Sampling(),
                max_tokens=len(prompt) + ROUND_TOKENS,
                has_local_ends=False,
                num_prompt=len(prompt),
            ),
            token_ids=prompt,
        )
        this = Round(prompt_tokens=len(prompt), began_at=self._clock())
        self.rounds.append(this)
        try:
            async with session:
                for _ in range(ROUND_TOKENS):
                    await session.next_token()
                    this.token_at.append(self._clock())
        finally:
            this.chain = session.chain
            self._session = None

    def _router(self, spec: ModelSpec) -> SwarmRouter:
        return SwarmRouter(
            reader=self._reader,
            links=self._links,
            spec=spec,
            experience=self.witness,
            patience_s=PATIENCE_S,
            local_head=False,
            has_ring=True,
            here=lambda: self._gossip.coordinate,
            rtt_s=self._gossip.rtt_s,
        )

    def _note_ages(self, known: Any) -> None:
        now = self._wall_clock()
        for each in known:
            self._note_age(each, now)

    def _note_age(self, known: PeerHealth, now: float) -> None:
        peer, age_s = known.health.peer, now - known.health.issued_at
        self._ages_s[peer] = min(age_s, self._ages_s.get(peer, age_s))

    # --- events of links

    def on_message(self, link: Link, message: Any) -> None:
        """Hand a message to the session, and note how far hops are (`LinkEvents`)."""
        session = self._session
        if session is None or getattr(message, "session", b"") != session.id:
            return  # late
        if isinstance(message, Progress) and min(message.queue_s, message.compute_s) >= 0.0:
            heard = Heard(
                at=self._clock(),
                position=message.position,
                num_steps=message.num_steps,
                queue_s=message.queue_s,
                compute_s=message.compute_s,
            )
            self.rounds[-1].note((link.peer, message.layer), heard)
        session.inbox.on_message(link, message)

    def on_lost(self, link: Link, error: PeerError) -> None:
        """Tell the session (`LinkEvents`)."""
        if self._session is not None:
            self._session.inbox.on_lost(link, error)
