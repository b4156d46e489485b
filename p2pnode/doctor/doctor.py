"""An examination from the top: look here, join, look around, probe a chain, judge.

Every part has its deadline and the whole has one; what was not measured by then is missing, and the
verdict is made from the rest. So there is an answer also where nobody answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from p2pnode.doctor import checks
from p2pnode.doctor.choosing import not_served, peers_told, served, spec_of
from p2pnode.doctor.here import Here
from p2pnode.doctor.measured import Measured
from p2pnode.doctor.probe import Probe
from p2pnode.doctor.report import Check, Report
from p2pnode.doctor.rules import judge
from p2pnode.doctor.steps import chain_of
from p2pnode.errors import (
    ClockSkew,
    JoinFailed,
    LocalError,
    P2PNodeError,
    PeerTimeout,
)
from p2pnode.net.reach import Reach
from p2pnode.swarm.join import Meeting
from p2pnode.swarm.network import Joined, Network
from p2pnode.tasks import Tasks
from p2pnode.types import Announcement, Hop, ModelSpec, PeerId, SwarmView

log = logging.getLogger(__name__)

WITHIN_S = 11.0
"""All of it, so that a command which has to import torch answers within 15 s."""
JOIN_WITHIN_S = 5.0
PROBE_WITHIN_S = 6.0
MEET_WITHIN_S = 3.2
CHECK_WITHIN_S = 4.0
MAX_BOOTSTRAP = 16
MAX_HIDDEN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be examined, and how."""

    look: Callable[[], Iterator[Here]]
    """Looks at this machine, and gives what it has seen so far; each part may block."""
    candidates: Callable[[], dict[PeerId, tuple[str, ...]]] = dict
    """Peers to join through, and where they are."""
    model: str | None = None
    """Of several that the swarm serves; None: the one with most peers."""
    rtt_limit_s: float = 0.5
    wall_clock: Callable[[], float]


async def examine(network: Network, asked: Asked) -> Report:
    """Find out what is in the way; raises BadRequest for addresses that are none."""
    return await _Examination(network, asked).run()


@dataclass(slots=True)
class _Examination:
    """What is known so far: it is judged whenever time is over."""

    network: Network
    asked: Asked
    here: Here | None = None
    join_s: float | None = None
    join_error: P2PNodeError | None = None
    directory_s: float | None = None
    probe: Probe | None = None
    spec: ModelSpec | None = None
    began_probe_at: float | None = None
    ended_probe_at: float | None = None
    is_cut: bool = False
    """Whether time was over before the probe was done."""
    failure: P2PNodeError | None = None
    answers: dict[PeerId, str] = field(default_factory=dict)
    """Of each bootstrap peer why it does not answer; empty: it does."""
    skew: str = ""
    is_dialable: bool | None = None
    hidden: dict[PeerId, bool] = field(default_factory=dict)
    """Peers that cannot be dialled, and whether others helped to reach them."""

    async def run(self) -> Report:
        """Measure until done or time is over, then judge."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(WITHIN_S), Tasks() as tasks:
                looking = tasks.start(self._look(), name="look")
                await self._swarm()
                await asyncio.wait([looking])
        except LocalError as error:  # our own daemon has died, say
            self.failure = error
        except TimeoutError:
            log.debug("time is over: join_s=%s directory_s=%s", self.join_s, self.directory_s)
            if self.began_probe_at is not None and self.ended_probe_at is None:
                self.ended_probe_at, self.is_cut = clock(), True
        return self._report(clock() - began)

    async def _look(self) -> None:
        loop, looks = asyncio.get_running_loop(), self.asked.look()
        while (here := await loop.run_in_executor(None, next, looks, None)) is not None:
            self.here = here

    # --- the swarm

    async def _swarm(self) -> None:
        """Join, then everything that needs that."""
        clock = asyncio.get_running_loop().time
        began = clock()
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(JOIN_WITHIN_S):
                    joined = await stack.enter_async_context(self.network.join())
            except TimeoutError:
                self.join_error = JoinFailed(f"not joined within {JOIN_WITHIN_S:g} s")
                return
            except (JoinFailed, LocalError) as error:
                self._not_joined(error)
                return
            self.join_s = clock() - began
            probe = await stack.enter_async_context(Probe(joined, wall_clock=self.asked.wall_clock))
            self.probe = probe
            async with Tasks() as beside:
                meeting = beside.start(self._meet(joined), name="bootstrap")
                checking = beside.start(self._check_reach(joined), name="reachability")
                await self._chain(probe)
                await self._reach_hidden(probe)
                await asyncio.wait([meeting, checking])

    def _not_joined(self, error: P2PNodeError) -> None:
        self.join_error = error
        if isinstance(error, ClockSkew):
            self.skew = str(error)
        tried = error.tried if isinstance(error, JoinFailed) else ()
        why = {getattr(each, "peer", None): str(each) for each in tried}
        for peer in self._candidates():
            self.answers[peer] = why.get(peer, "no answer")

    def _candidates(self) -> dict[PeerId, tuple[str, ...]]:
        return dict(list(self.asked.candidates().items())[:MAX_BOOTSTRAP])

    async def _meet(self, joined: Joined) -> None:
        """Ask the bootstrap peers one by one, at once, whether they answer."""
        directory = joined.directory
        if not isinstance(directory, Meeting):
            return
        async with Tasks() as tasks:
            for peer, addresses in self._candidates().items():
                if peer != joined.transport.peer:
                    tasks.start(self._meet_one(directory, peer, addresses), name="meet")
            await tasks.wait()

    async def _meet_one(self, meeting: Meeting, peer: PeerId, addresses: tuple[str, ...]) -> None:
        try:
            async with asyncio.timeout(MEET_WITHIN_S):
                await meeting.meet(peer, addresses)
        except TimeoutError:
            self.answers[peer] = str(PeerTimeout(peer, f"no answer in {MEET_WITHIN_S:g} s"))
        except P2PNodeError as error:
            self.answers[peer] = str(error)
            if isinstance(error, ClockSkew):
                self.skew = str(error)
        else:
            self.answers[peer] = ""

    async def _check_reach(self, joined: Joined) -> None:
        """Have peers dial this machine."""
        transport = joined.transport
        if not isinstance(transport, Reach):
            return
        try:
            async with asyncio.timeout(CHECK_WITHIN_S):
                await transport.check()
        except (TimeoutError, P2PNodeError) as error:
            log.debug("reachability not checked: error=%r", str(error))
        self.is_dialable = transport.is_dialable

    async def _chain(self, probe: Probe) -> None:
        """Read the directory, choose a model, and generate through a chain of its peers."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            view = await probe.view()
        except JoinFailed as error:
            self.failure = error
            return
        self.directory_s = clock() - began
        found = served(view, self.asked.model)
        if not found:
            self.failure = not_served(view, self.asked.model)
            return
        self.spec = spec_of(found[0])
        await probe.hear_health({a.peer for a in found})
        self.began_probe_at = clock()
        try:
            async with asyncio.timeout(PROBE_WITHIN_S):
                await probe.run(self.spec)
        except TimeoutError:
            self.is_cut = True
        self.ended_probe_at = clock()
        self.failure = probe.failure

    async def _reach_hidden(self, probe: Probe) -> None:
        """Try some of the peers that cannot be dialled."""
        hidden = [Hop(a.peer, a.layers) for a in probe.known().announcements if not a.addresses]
        self.hidden = await probe.reach_hidden(hidden[:MAX_HIDDEN])

    # --- the answer

    def _view(self) -> SwarmView:
        if self.probe is None:
            return SwarmView(())
        view = self.probe.known()
        return view if self.spec is None else view.of_model(self.spec.fingerprint)

    def _measured(self, view: SwarmView) -> Measured:
        probe, here = self.probe, self.here
        began, end = self.began_probe_at, self.ended_probe_at
        cut_at = end if self.is_cut else None
        own = self._own(view)
        return Measured(
            join_s=self.join_s,
            join_error=self.join_error,
            directory_s=self.directory_s,
            view=view,
            chain=chain_of(probe.rounds, probe.reached(), cut_at=cut_at) if probe else None,
            errors=tuple(probe.witness.errors) if probe else (),
            failure=self.failure or (probe.failure if probe else None),
            probed_s=0.0 if began is None or end is None else end - began,
            pressure=checks.pressure(here) if here is not None else "",
            device=checks.device_now(here, own) if here is not None else "",
            own_peers=here.own_peers if here is not None else frozenset(),
            rtt_limit_s=self.asked.rtt_limit_s,
        )

    def _report(self, took_s: float) -> Report:
        view = self._view()
        measured = self._measured(view)
        return Report(
            verdict=judge(measured),
            checks=tuple(self._checks(view)),
            chain=measured.chain,
            peers=peers_told(view),
            took_s=took_s,
        )

    def _own(self, view: SwarmView) -> list[Announcement]:
        """What the nodes of this home announce."""
        ours = self.here.own_peers if self.here is not None else frozenset()
        return [a for a in view.announcements if a.peer in ours]

    def _checks(self, view: SwarmView) -> list[Check]:
        here, found = self.here, []
        if here is not None:
            found += [*checks.checks_here(here, self._own(view)), checks.network(here)]
        has_joined = self.join_error is None and self.join_s is not None
        found += checks.bootstrap(self.answers, has_joined=has_joined)
        if not has_joined or self.probe is None:
            return [*found, checks.clock(None, self.skew)]
        hidden = [a.peer for a in view.announcements if not a.addresses]
        punched = any(self.hidden.values()) if self.hidden else None
        found.append(checks.clock(self.probe.ahead_s, self.skew))
        found.append(checks.reachability(self.is_dialable, punched))
        found.append(checks.directory(self.directory_s, self.probe.known()))
        found.append(checks.through_others(hidden, self.hidden))
        return found
