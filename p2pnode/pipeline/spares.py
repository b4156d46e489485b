"""Warm connections to whoever would replace a hop: for chains without standbys.

Dialling, greeting and opening streams cost half a dozen round trips, and would be paid in the
middle of a failover.
"""

from __future__ import annotations

import asyncio
import contextlib

from p2pnode.errors import P2PNodeError
from p2pnode.net.links import Links
from p2pnode.pipeline.configure import Configuration
from p2pnode.pipeline.roles import Router
from p2pnode.tasks import all_of
from p2pnode.wire.messages import Warm

INTERVAL_S = 15.0


async def keep_warm(now: Configuration, links: Links, router: Router) -> None:
    """Have the links that a replacement of each hop would need, until cancelled."""
    while True:
        await all_of(*(_warm(now, index, links, router) for index in range(len(now.hops))))
        await asyncio.sleep(INTERVAL_S)


async def _warm(now: Configuration, index: int, links: Links, router: Router) -> None:
    with contextlib.suppress(P2PNodeError):  # the chain runs; this only makes a failover quicker
        hop = await router.standby(now.chain, index, now.terms.max_tokens)
        if hop is None:
            return
        link = await links.connect(hop.peer, hop.addresses)
        if index:
            now.hops[index - 1].send(Warm(peer=hop.peer, addresses=hop.addresses))
        if index + 1 < len(now.hops):
            following = now.hops[index + 1].hop
            link.send(Warm(peer=following.peer, addresses=following.addresses))
