"""The terms of the sum that chooses a chain, and those that a peer alone decides, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from p2pnode.routing.needs import Needs
from p2pnode.routing.steps import step_s
from p2pnode.types import Announcement, Health, Liveness, PeerHealth, PeerId

Floats = NDArray[np.float64]
Indexes = NDArray[np.intp]

SUSPECT_COST_S = 10.0
"""It may be gone. Worse is one that will be, worst one that has failed us lately; all of them are
better than none."""
DRAINING_COST_S = 100.0
AVOIDED_COST_S = 1000.0
LOAD_SHARE = 1.0
"""How much of its step time a session on a peer is in the way of another one's step: at the worst
each waits for all others."""
ERROR_COST_S = 0.005
"""What each error costs that a peer tells of itself, e.g. of its memory."""
MAX_ERRORS = 20
CHUNK_TOKENS = 64
"""How a prompt is computed."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What one hop adds to the sum; only the risk and the spread are no predicted time."""

    queue_s: float = 0.0
    """Waiting for the device."""
    compute_s: float = 0.0
    way_s: float = 0.0
    """Half the round trip from the hop before."""
    transfer_s: float = 0.0
    """The bytes, on the uplink of the hop before."""
    measured_s: float = 0.0
    """What steps took more (or less) than this sum predicted."""
    risk_s: float = 0.0
    """Reputation, suspicion, leaving, errors; and what there is to do once per answer: a prompt to
    compute that others hold, and in a ring the ways of the client."""
    spread_s: float = 0.0
    """A draw: load that nobody has seen yet, another one for each session."""

    @property
    def time_s(self) -> float:
        """The predicted time."""
        return self.queue_s + self.compute_s + self.way_s + self.transfer_s + self.measured_s

    @property
    def total_s(self) -> float:
        """The sum that is compared."""
        return self.time_s + self.risk_s + self.spread_s


def sane_s(times_s: Floats) -> Floats:
    """Times that peers tell of themselves; one that cannot be makes its peer the last resort."""
    return np.where(np.isfinite(times_s) & (times_s >= 0.0), times_s, AVOIDED_COST_S)


def queues_s(
    peers: Sequence[Announcement],
    told: Sequence[Health | None],
    block_s: Sequence[float],
    needs: Needs,
) -> Floats:
    """What steps have waited lately, or what the sessions that are there will make them wait."""
    waits = []
    for a, health, step in zip(peers, told, block_s, strict=True):
        sessions = needs.unseen_sessions.get(a.peer, 0) + (health.num_sessions if health else 0)
        waits.append(max(health.queue_s if health else 0.0, LOAD_SHARE * sessions * step))
    return np.array(waits, dtype=np.float64)


def extras_s(peers: Sequence[Announcement], needs: Needs) -> Floats:
    """The least excess of all measured ways to a peer: what they share is the peer's own."""
    least: dict[PeerId, float] = {}
    for (_, peer), excess_s in needs.measured_s.items():
        least[peer] = min(least.get(peer, excess_s), excess_s)
    return np.array([max(0.0, least.get(a.peer, 0.0)) for a in peers], dtype=np.float64)


def risks_s(
    peers: Sequence[Announcement], known: Sequence[PeerHealth | None], needs: Needs
) -> Floats:
    """Reputation, suspicion, leaving, and the errors that a peer tells of."""
    risks = []
    for a, each in zip(peers, known, strict=True):
        risk_s = needs.risk_s.get(a.peer, 0.0)
        risk_s += AVOIDED_COST_S if a.peer in needs.avoid.slow else 0.0
        if each is not None:
            risk_s += SUSPECT_COST_S if each.liveness is Liveness.SUSPECT else 0.0
            risk_s += DRAINING_COST_S if each.health.is_draining else 0.0
            for _, count in each.health.errors:
                risk_s += ERROR_COST_S * min(MAX_ERRORS, count)
        risks.append(risk_s)
    return np.array(risks, dtype=np.float64)


def anew_s(peers: Sequence[Announcement], told: Sequence[Health | None], needs: Needs) -> Floats:
    """What peers that do not hold the prompt would compute of it, for each token of the answer."""
    held = needs.held
    times = [
        0.0
        if not held.num_tokens or a.peer in held.peers
        else held.per_token * step_s(a, health, CHUNK_TOKENS) / CHUNK_TOKENS
        for a, health in zip(peers, told, strict=True)
    ]
    return sane_s(np.array(times, dtype=np.float64))
