"""The swarm as one client sees it, to be shown: its peers, and what runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from p2pnode.client.experience import Experience
from p2pnode.client.peers import Observed, observed
from p2pnode.client.runs import Runs
from p2pnode.gossip.gossip import Gossip
from p2pnode.net.volume import Volume
from p2pnode.swarm.network import Joined
from p2pnode.swarm.view import MAX_AGE_S, SwarmReader
from p2pnode.types import Liveness


class SwarmSeen:
    """Only looks: nothing here changes what the client does."""

    def __init__(
        self,
        joined: Joined,
        gossip: Gossip,
        experience: Experience,
        *,
        wall_clock: Callable[[], float],
    ) -> None:
        """To be made within an event loop."""
        self.runs = Runs()
        """The client's generations."""
        self.reader = SwarmReader(
            joined.directory,
            wall_clock=wall_clock,
            monotonic=asyncio.get_running_loop().time,
            health=gossip.snapshot,
        )
        self.volumes: Mapping[str, Volume] = {}
        """Set when there are links."""
        self._swarm = joined.swarm
        self._gossip = gossip
        self._experience = experience

    async def observe(self, *, max_age_s: float = MAX_AGE_S) -> Observed:
        """The swarm, other models' peers included, as it was so short a time ago, and what was seen
        of it from here; raises JoinFailed."""
        await self.reader.view(max_age_s=max_age_s)
        return self.observed()

    def observed(self) -> Observed:
        """The last reading of the swarm, and what gossip and we ourselves know now.

        Who has just stopped answering us is shown as suspect: others will be asked about it first.
        """
        now = asyncio.get_running_loop().time()
        view = self.reader.known()
        doubted = {
            peer: replace(known, liveness=Liveness.SUSPECT)
            for peer in self._gossip.doubted
            if (known := view.health.get(peer)) and known.liveness is Liveness.ALIVE
        }
        shown = replace(view, health={**view.health, **doubted}) if doubted else view
        found = observed(shown, self._experience.reputation, self._gossip.rtt_s, now, self._swarm)
        return replace(found, volumes=self.volumes)
