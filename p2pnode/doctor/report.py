"""What an examination comes to: checks, one verdict, and what peers tell of themselves."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from p2pnode.doctor.measured import ChainMeasured
from p2pnode.types import LayerRange, PeerId


class Grade(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    """It works, but this may be in the way."""
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    """One word for scripts: ``clock``, ``disk``, ..."""
    grade: Grade
    evidence: str
    """What was seen, with the numbers."""
    remedy: str = ""
    """What to do about it; empty when there is nothing to do."""


class Cause(StrEnum):
    """What is in the way of a request."""

    NONE = "none"
    DISCOVERY = "discovery"
    """The swarm, or peers for all layers, cannot be found or greeted in time."""
    NODE_FAILING = "node_failing"
    """A peer dies, stalls, or fails in its steps."""
    MEMORY_PRESSURE = "memory_pressure"
    """A peer, or this machine, runs out of memory."""
    OVERLOADED = "overloaded"
    """Steps wait for a device, or there is no room for the session."""
    SLOW_DEVICE = "slow_device"
    """A peer computes far slower than others do, or than it has done."""
    NETWORK = "network"
    """The way to a peer, or between two, is long or unsteady."""
    THIN_LINK = "thin_link"
    """Hidden states take long for their bytes."""
    SPLIT_TOO_FINE = "split_too_fine"
    """Tokens spend their time on the way between many peers who have little to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The one cause that matters most, in one sentence, and what to do."""

    cause: Cause
    evidence: str
    remedy: str = ""
    peer: PeerId | None = None
    """Whose; None: nobody's, or this machine's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTold:
    """What a peer says of itself, and what is believed of it."""

    peer: PeerId
    layers: LayerRange
    liveness: str
    """``alive``, ``suspect``, ``dead``, or ``unknown`` where gossip has not told."""
    num_sessions: int = 0
    device_load: float = 0.0
    vram_used: float = 0.0
    errors: tuple[tuple[str, int], ...] = ()
    """(kind, how many in the last minutes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All of it."""

    verdict: Verdict
    checks: tuple[Check, ...]
    chain: ChainMeasured | None
    """None: there was none to probe."""
    peers: tuple[PeerTold, ...]
    took_s: float
