"""The swarm as one client sees it, to be shown: its peers, and what runs."""

from __future__ import annotations

import asyncio
from typing import Any

from p2pnode.client.experience import Experience
from p2pnode.client.peers import Observed, observed
from p2pnode.client.picture import picture
from p2pnode.client.runs import Runs
from p2pnode.gossip.gossip import Gossip
from p2pnode.swarm.view import SwarmReader


class SwarmSeen:
    """Only looks: nothing here changes what the client does."""

    def __init__(self, reader: SwarmReader, gossip: Gossip, experience: Experience) -> None:
        self.runs = Runs()
        """The client's generations."""
        self._reader = reader
        self._gossip = gossip
        self._experience = experience

    async def read(self, *, max_age_s: float) -> None:
        """Have the directory read where the last reading is older; raises JoinFailed."""
        await self._reader.view(max_age_s=max_age_s)

    def observed(self) -> Observed:
        """The last reading, and what gossip and we ourselves know now."""
        view, now = self._reader.known(), asyncio.get_running_loop().time()
        return observed(view, self._experience.reputation, self._gossip.rtt_s, now)

    def picture(self, *, max_peers: int | None = None) -> dict[str, Any]:
        """The same as JSON (`client.picture`)."""
        return picture(self.observed(), max_peers=max_peers)
