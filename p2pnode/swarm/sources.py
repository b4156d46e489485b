"""Whom to ask for a swarm: what was named, who runs here, who was there the last time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from p2pnode.config import SwarmConfig, public_peers
from p2pnode.dht.peers_file import FILE_NAME, load_peers
from p2pnode.errors import BadRequest
from p2pnode.swarm.membership import Membership
from p2pnode.swarm.running import running_addresses
from p2pnode.types import PeerId

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinSources:
    """Where to look for a swarm."""

    home: Path
    explicit: tuple[str, ...] = ()
    """Addresses from ``--join``; with any, nothing else is tried."""
    public: tuple[str, ...] = ()
    """Addresses from ``bootstrap_peers.txt``."""
    nearby: Callable[[], tuple[str, ...]] = tuple
    """Addresses that the network around us shows now."""

    def candidates(self) -> dict[PeerId, tuple[str, ...]]:
        """Whom to try, as it is now; raises BadRequest for an explicit address without a peer."""
        candidates: dict[PeerId, tuple[str, ...]] = {}
        if self.explicit:
            add(candidates, by_peer(self.explicit))
        else:
            add(candidates, _good_addresses(running_addresses(self.home / "run")))
            last_good = load_peers(self.home / FILE_NAME)
            add(candidates, {good.peer: good.addresses for good in last_good})
            add(candidates, _good_addresses((*self.public, *self.nearby())))
        return candidates


def by_peer(addresses: Iterable[str]) -> dict[PeerId, tuple[str, ...]]:
    """Addresses grouped by the peer that they end in; raises BadRequest without one."""
    grouped: dict[PeerId, tuple[str, ...]] = {}
    for address in addresses:
        _, _, name = address.rpartition("/p2p/")
        try:
            peer = PeerId.parse(name)
        except ValueError as error:
            raise BadRequest(f"address {address[:200]!r} does not end in /p2p/PEER") from error
        grouped[peer] = (*grouped.get(peer, ()), address)
    return grouped


def sources(
    config: SwarmConfig,
    membership: Membership | None,
    *,
    has_joined: bool = False,
    nearby: Callable[[], tuple[str, ...]] = tuple,
) -> JoinSources:
    """Where a participant of that configuration looks; an invite brings addresses of its own.

    has_joined: whether it was in the swarm before: then ``--join`` is a hint among others; nearby:
    see `JoinSources`
    """
    folder = config.home.folder if membership is None else membership.folder
    if config.join and not has_joined:
        return JoinSources(home=folder, explicit=config.join)
    known = public_peers(Path.cwd()) if membership is None else membership.invite.addresses
    return JoinSources(home=folder, public=(*config.join, *known), nearby=nearby)


def add(candidates: dict[PeerId, tuple[str, ...]], more: Mapping[PeerId, tuple[str, ...]]) -> None:
    for peer, addresses in more.items():
        candidates[peer] = tuple(dict.fromkeys((*candidates.get(peer, ()), *addresses)))


def _good_addresses(addresses: Iterable[str]) -> dict[PeerId, tuple[str, ...]]:
    """Like `by_peer`, for lists that nobody typed just now: a bad line costs itself only."""
    good: dict[PeerId, tuple[str, ...]] = {}
    for address in addresses:
        try:
            add(good, by_peer([address]))
        except BadRequest as error:
            log.warning("address ignored: error=%s", error)
    return good
