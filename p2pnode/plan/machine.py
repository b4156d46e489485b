"""What a plan is made for: machines, the network between them, and the work."""

from __future__ import annotations

from dataclasses import dataclass

from p2pnode.errors import BadRequest
from p2pnode.types import PeerId

EFFICIENCY = 0.6
"""What a block reaches of a device's bandwidth and of its arithmetic; transformers' own code."""
HOP_S = 0.0015
"""What a hop costs in software: `p2pnode bench loopback`."""
OPERATIONS_PER_BYTE = 50.0
"""Arithmetic beside bandwidth, where only the latter is told; most devices have more."""
MAX_MACHINES = 64
MAX_TOKENS = 1 << 24
MAX_BATCH = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine that may serve layers."""

    name: str
    """For people."""
    memory_bytes: int
    memory_bytes_per_s: float
    flops_per_s: float
    peer: PeerId | None = None
    slowness: float = 1.0
    """How much longer its steps take than by the formula, where that was measured."""

    def __post_init__(self) -> None:
        if self.memory_bytes < 1 or not self.memory_bytes_per_s > 0 or not self.flops_per_s > 0:
            raise BadRequest(f"machine {self.name} has no memory, or it is never read")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """The network between any two machines, and between them and the client."""

    rtt_s: float
    up_bytes_per_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.rtt_s <= 60:
            raise BadRequest(f"a round trip takes 0 to 60000 ms, not {self.rtt_s * 1e3:g}")
        if not 1e3 <= self.up_bytes_per_s <= 1e12:
            raise BadRequest(f"an uplink of {self.up_bytes_per_s / 125e3:g} Mbit/s is none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be served."""

    context_tokens: int
    """Of each session, prompt and answer; also the prompt whose first token is predicted."""
    batch: int
    """Sessions at the same time."""
    chunk_tokens: int
    """The largest step: prompts are cut to it."""

    def __post_init__(self) -> None:
        if not 0 < self.context_tokens <= MAX_TOKENS:
            raise BadRequest(f"context must be 1 to {MAX_TOKENS} tokens, not {self.context_tokens}")
        if not 0 < self.batch <= MAX_BATCH:
            raise BadRequest(f"batch must be 1 to {MAX_BATCH} sessions, not {self.batch}")

    @property
    def session_tokens(self) -> int:
        """Of all sessions together."""
        return self.context_tokens * self.batch
