"""The values that packages hand each other: peers, layer ranges, tensors, announcements, chains.

Pure: no I/O, no clock, no torch. Times are seconds, sizes bytes, ranges half-open.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from p2pnode.sampling import Chosen as Chosen
from p2pnode.sampling import Sampling as Sampling

BASE58 = frozenset("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int64": 8}
"""The dtypes a tensor may have on the wire, and the bytes of one element."""

MAX_LAYERS = 10_000


class PeerId(str):
    """A libp2p peer id of an Ed25519 key in base58 (``12D3KooW...``, 52 characters)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Check the outside form; ValueError when it cannot be an Ed25519 peer id."""
        if len(text) != 52 or not text.startswith("12D3KooW") or not BASE58.issuperset(text):
            raise ValueError(f"{text[:60]!r} is not the peer id of an Ed25519 key")
        return cls(text)

    @property
    def short(self) -> str:
        """The last 8 characters, for logs and tables."""
        return self[-8:]


@dataclass(frozen=True, slots=True, order=True)
class LayerRange:
    """Decoder layers ``start, ..., stop - 1`` (half-open, like ``range``)."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop <= MAX_LAYERS:
            raise ValueError(f"layers {self.start} to {self.stop} are not a range")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the outside form: ``"0-26"`` is layers 0 to 26, both included; or ValueError."""
        first, dash, last = text.partition("-")
        if not (dash and _is_number(first) and _is_number(last) and int(first) <= int(last)):
            raise ValueError(f"{text[:40]!r} is not FIRST-LAST, e.g. 0-26")
        return cls(int(first), int(last) + 1)

    def __str__(self) -> str:
        return f"{self.start}-{self.stop - 1}" if self else "none"

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.stop))

    def covers(self, other: LayerRange) -> bool:
        """Whether every layer of ``other`` is one of ours."""
        return self.start <= other.start and other.stop <= self.stop


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5


def uncovered(ranges: Iterable[LayerRange], num_layers: int) -> tuple[LayerRange, ...]:
    """The layers of a model that no range covers, as ranges in order."""
    missing, reached = [], 0
    for layers in sorted(ranges):
        if layers.start > reached:
            missing.append(LayerRange(reached, min(layers.start, num_layers)))
        reached = max(reached, layers.stop)
    if reached < num_layers:
        missing.append(LayerRange(reached, num_layers))
    return tuple(missing)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as plain bytes: little endian, contiguous; only `model` turns it into torch.

    Checked once, here: dtype, one or two dimensions, the bytes of that shape; else ValueError.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes | bytearray | memoryview = field(repr=False)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPE_BYTES:
            raise ValueError(f"dtype {self.dtype[:20]!r} is not one of {', '.join(DTYPE_BYTES)}")
        if not 1 <= len(self.shape) <= 2 or not all(0 < size < 1 << 31 for size in self.shape):
            raise ValueError(f"shape {self.shape} is not [tokens] or [tokens, hidden_size]")
        if self.num_bytes != len(self.data):
            raise ValueError(f"{len(self.data)} bytes for {self.dtype} {self.shape}")

    @property
    def num_bytes(self) -> int:
        """Bytes that dtype and shape stand for."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What everyone must know about a model to route and to count, from its config alone."""

    name: str
    """Hub id, or the folder's name."""
    fingerprint: str
    """Decides whether two peers serve the same model; hex SHA-256."""
    family: str
    num_layers: int
    hidden_size: int
    vocab_size: int
    max_positions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What one peer serves of one model; signed by it, kept in the directory for a minute."""

    peer: PeerId
    model: str
    fingerprint: str
    num_layers: int
    layers: LayerRange
    numerics: str
    """Numerics class: dtype, quantisation and wire codec, e.g. ``float32`` or ``bfloat16``."""
    device: str
    """``cuda``, ``xpu``, ``mps``, or ``cpu``, whose VRAM figures are RAM."""
    device_name: str
    vram_total_bytes: int
    vram_free_bytes: int
    kv_capacity_tokens: int
    flops_per_s: float
    memory_bytes_per_s: float
    latency_s: float
    """Measured time of one decode step through the block."""
    tokens_per_s: float
    up_bytes_per_s: float
    """0 when not known."""
    down_bytes_per_s: float
    offers_embedding: bool
    offers_head: bool
    addresses: tuple[str, ...]
    protocol: int
    software: str
    sequence: int
    issued_at: float
    """Wall clock, seconds since the epoch; so is ``expires_at``."""
    expires_at: float
    is_withdrawn: bool = False
    """A tombstone: the peer has left."""


@dataclass(frozen=True, slots=True)
class Coordinate:
    """A place in network space (Dabek et al., "Vivaldi", 2004); all in seconds.

    The predicted RTT between two is the distance of their places plus both heights.
    """

    place: tuple[float, float, float] = (0.0, 0.0, 0.0)
    height_s: float = 0.0
    error: float = 1.0
    """How wrong predictions from here have been lately, relative; 1 is "no idea"."""

    def rtt_s(self, other: Coordinate) -> float:
        """The predicted round trip."""
        return math.dist(self.place, other.place) + self.height_s + other.height_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What one peer says of itself about once per second; signed by it, carried by gossip."""

    peer: PeerId
    sequence: int
    issued_at: float
    """Wall clock, seconds since the epoch."""
    is_draining: bool = False
    num_sessions: int = 0
    queue_depth: int = 0
    """Steps that wait for the device."""
    queue_s: float = 0.0
    """How long a step has waited lately, mean."""
    kv_free_tokens: int | None = None
    """None: not known."""
    step_times: tuple[tuple[int, float, float], ...] = ()
    """(tokens of a step, p50, p95 of its compute time in seconds); tokens rising, at most 4."""
    vram_used: float = 0.0
    """A share, 0 to 1; so is ``device_load``."""
    device_load: float = 0.0
    errors: tuple[tuple[str, int], ...] = ()
    """(kind, how many in the last minutes), e.g. ``("out-of-memory", 2)``; at most 4."""
    coordinate: Coordinate = field(default_factory=Coordinate)


class Liveness(StrEnum):
    """What the failure detector believes of a peer."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class PeerHealth:
    """The last health of a peer, and whether it is believed to be there."""

    health: Health
    liveness: Liveness = Liveness.ALIVE


@dataclass(frozen=True, slots=True)
class SwarmView:
    """The live announcements of a swarm and what gossip says of their peers, at one instant."""

    announcements: tuple[Announcement, ...]
    health: Mapping[PeerId, PeerHealth] = field(default_factory=dict)
    """Peers of which gossip has not told are missing: nothing is known against them."""

    def of_model(self, fingerprint: str) -> SwarmView:
        """Only the announcements of that model."""
        those = tuple(a for a in self.announcements if a.fingerprint == fingerprint)
        return SwarmView(those, self.health)


@dataclass(frozen=True, slots=True)
class Hop:
    """One peer's part in a chain: the layers it runs, and where to reach it."""

    peer: PeerId
    layers: LayerRange
    addresses: tuple[str, ...] = ()
    is_carried: bool = False
    """Whether its input comes through the client: the hop before cannot reach it."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Hops which together cover all layers, in order, within one numerics class."""

    hops: tuple[Hop, ...]
    numerics: str

    def __str__(self) -> str:
        return " -> ".join(f"{hop.peer.short} {hop.layers}" for hop in self.hops)
