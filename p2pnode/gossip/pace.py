"""How often to speak: less when nothing changes, less when the swarm is large; pure.

A node receives about one digest per member and interval. With digests of about 200 bytes these
intervals keep that below the budget of 2 kB/s at 20 nodes (8 kB/s under load, and at 1,000 nodes);
`appetite` keeps it there for each node at any time.
"""

from __future__ import annotations

import math

from p2pnode.types import Coordinate, Health

SOON_S = 1.0
SOON_PER_PEER_S = 0.05
REFRESH_S = 10.0
REFRESH_PER_PEER_S = 0.08
MOVED_S = 0.01
COORDINATE_FACTOR = 3.0
"""A moved coordinate alone waits so many times longer than other changes."""


def refresh_s(num_peers: int) -> float:
    """After so long a health is told again, changed or not."""
    return max(REFRESH_S, REFRESH_PER_PEER_S * num_peers)


def soon_s(num_peers: int) -> float:
    """A significant change is told at once, but not more often than this."""
    return max(SOON_S, SOON_PER_PEER_S * num_peers)


def is_due(told: Health | None, now_is: Health, since_s: float, num_peers: int) -> bool:
    """Whether to publish: ``told`` is what the others have, ``since_s`` ago."""
    if told is None or since_s >= refresh_s(num_peers):
        return True
    if told.is_draining != now_is.is_draining:
        return True
    if since_s < soon_s(num_peers):
        return False
    if _differ(told, now_is):
        return True
    wait_s = COORDINATE_FACTOR * soon_s(num_peers)
    return since_s >= wait_s and _has_moved(told.coordinate, now_is.coordinate)


def _differ(old: Health, new: Health) -> bool:
    """Whether somebody might route differently."""
    return (
        old.num_sessions != new.num_sessions
        or old.errors != new.errors
        or _jumped(old.queue_depth, new.queue_depth, least=1, share=0.25)
        or _jumped(old.queue_s, new.queue_s, least=0.005, share=0.25)
        or _jumped(old.kv_free_tokens or 0, new.kv_free_tokens or 0, least=64, share=0.1)
        or _jumped(old.vram_used, new.vram_used, least=0.1, share=0.1)
        or _jumped(old.device_load, new.device_load, least=0.2, share=0.2)
        or _times_differ(old, new)
    )


def _times_differ(old: Health, new: Health) -> bool:
    if len(old.step_times) != len(new.step_times):
        return True
    return any(
        was[0] != now_is[0] or _jumped(was[1], now_is[1], least=0.001, share=0.2)
        for was, now_is in zip(old.step_times, new.step_times, strict=True)
    )


def _jumped(old: float, new: float, *, least: float, share: float) -> bool:
    return abs(new - old) > max(least, share * max(abs(old), abs(new)))


def _has_moved(old: Coordinate, new: Coordinate) -> bool:
    moved_s = math.dist(old.place, new.place) + abs(old.height_s - new.height_s)
    return moved_s > MOVED_S or new.error < old.error / 2
