"""What a session asks of a chain, and what its client knows besides the `SwarmView`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from p2pnode.types import Coordinate, PeerId

Link = tuple[PeerId | None, PeerId]
"""(from, to) of two neighbouring hops; from None is the client."""


class Draw(Protocol):
    """What `random.Random` is to us."""

    def random(self) -> float:
        """A number from 0 to 1."""
        ...


@dataclass(frozen=True, slots=True)
class Avoid:
    """What recent experience says against some peers."""

    peers: frozenset[PeerId] = frozenset()
    """Gone, or not willing: never used."""
    slow: frozenset[PeerId] = frozenset()
    """Used when nobody else is left."""
    links: frozenset[tuple[PeerId, PeerId]] = frozenset()
    """(from, to): the first could not reach the second."""


@dataclass(frozen=True, slots=True)
class Held:
    """What earlier sessions have left of this one's prompt."""

    peers: frozenset[PeerId] = frozenset()
    """Those who should hold it; others would have to compute it anew."""
    num_tokens: int = 0
    per_token: float = 0.0
    """So many of these tokens for each one of the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a session asks of a chain."""

    model: str
    fingerprint: str
    num_layers: int
    num_tokens: int
    hidden_size: int = 0
    """For the bytes between hops; 0: they are not counted."""
    step_tokens: int = 1
    """The steps that count: 1 is decoding."""
    local_head: bool = False
    has_ring: bool = False
    """Whether the last hop hands tokens straight to the first one (`serving.ring`)."""
    max_token_s: float | None = None
    """The longest that a token may be predicted to take."""
    min_tokens_per_s: float | None = None
    """The least that may be predicted."""
    avoid: Avoid = field(default_factory=Avoid)
    rtts_s: Mapping[PeerId, float] = field(default_factory=dict)
    """Round trips measured from here."""
    coordinate: Coordinate = field(default_factory=Coordinate)
    """Where we are; its error of 1 says that nobody knows."""
    risk_s: Mapping[PeerId, float] = field(default_factory=dict)
    """What a peer's reputation costs (`routing.reputation`)."""
    measured_s: Mapping[Link, float] = field(default_factory=dict)
    """By how much steps took longer (or, below 0, shorter) than predicted, per link."""
    unseen_sessions: Mapping[PeerId, int] = field(default_factory=dict)
    """Sessions that we have just put on a peer, of which its health cannot tell yet."""
    held: Held = Held()
    held_by: frozenset[PeerId] = frozenset()
    """Peers that hold this session already: room is not asked of them again."""

    @property
    def limit_s(self) -> float | None:
        """The longest that a token may take, of both limits."""
        limits = [] if self.max_token_s is None else [self.max_token_s]
        if self.min_tokens_per_s is not None:
            limits.append(1.0 / self.min_tokens_per_s)
        return min(limits, default=None)
