"""How long it takes to reach peers, and round trips to them, one after the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from p2pnode.doctor.measured import HopMeasured, Ways
from p2pnode.errors import PeerError
from p2pnode.net.links import Links
from p2pnode.tasks import Tasks, all_of
from p2pnode.types import Hop, LayerRange, PeerId
from p2pnode.wire.messages import CONTROL

PING_EVERY_S = 0.1
LOST_AFTER_S = 2.0


@dataclass(slots=True)
class Reached:
    """One peer that a link leads to."""

    connect_s: float
    rtts_s: list[float] = field(default_factory=list)
    num_lost: int = 0


class Pings:
    """Pings peers over their control links from when they are added.

    tasks: own the pinging
    """

    def __init__(self, links: Links, tasks: Tasks) -> None:
        self._links = links
        self._tasks = tasks
        self._reached: dict[PeerId, Reached] = {}

    async def add(self, hops: Iterable[Hop]) -> list[PeerError]:
        """Connect to those that are new; returns what went wrong."""
        new = {hop.peer: hop for hop in hops if hop.peer not in self._reached}
        errors: list[PeerError] = []
        await all_of(*(self._connect(hop, errors) for hop in new.values()))
        return errors

    def measured(self, layers: Mapping[PeerId, LayerRange]) -> dict[PeerId, HopMeasured]:
        """What is known of those peers whose layers are known, without any steps."""
        return {
            peer: HopMeasured(
                peer=peer,
                layers=layers[peer],
                connect_s=each.connect_s,
                ways=Ways(rtts_s=tuple(each.rtts_s), num_lost=each.num_lost),
            )
            for peer, each in self._reached.items()
            if peer in layers
        }

    async def _connect(self, hop: Hop, errors: list[PeerError]) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            await self._links.connect(hop.peer, hop.addresses)
        except PeerError as error:
            errors.append(error)
            return
        reached = self._reached[hop.peer] = Reached(clock() - began)
        self._tasks.start(self._ping(hop.peer, reached), name=f"ping-{hop.peer.short}")

    async def _ping(self, peer: PeerId, reached: Reached) -> None:
        """As long as there is a link."""
        while (link := self._links.get(peer, CONTROL)) is not None:
            with contextlib.suppress(PeerError):  # it ends now: then there is no link
                answer = link.ping()
                await asyncio.wait([answer], timeout=LOST_AFTER_S)
                if not answer.done():
                    reached.num_lost += 1
                    answer.cancel()
                elif not answer.cancelled():
                    reached.rtts_s.append(answer.result())
            await asyncio.sleep(PING_EVERY_S)
