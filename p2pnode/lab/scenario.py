"""What happens in a lab: who serves what, over which links, what breaks, and when. Values only.

`lab.scenario_file` reads them from TOML. A participant is a node, named by `Scenario.members`, or
the client, named ``client``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from p2pnode.lab.presets import PRESETS, Link, Way, way
from p2pnode.types import LayerRange

CLIENT = "client"


class Nat(StrEnum):
    """What stands between a node and the others."""

    NONE = "none"
    CONE = "cone"
    """Endpoint-independent mapping: can be punched."""
    SYMMETRIC = "symmetric"
    """A mapping per destination: cannot be dialled."""


class FaultKind(StrEnum):
    """What can go wrong; `lab.faults` says what each does."""

    KILL = "kill"
    KILL_AGENT = "kill-agent"
    KILL_DAEMON = "kill-daemon"
    STALL = "stall"
    DROP = "drop"
    SLOW = "slow"
    LOSS = "loss"
    THIN = "thin"
    PARTITION = "partition"
    CORRUPT = "corrupt"
    OOM = "oom"
    DISK_FULL = "disk-full"
    CLOCK = "clock"


DEADLY = frozenset({FaultKind.KILL, FaultKind.KILL_AGENT, FaultKind.KILL_DAEMON})
"""Kinds that cannot end: the dead do not come back."""


class Where(StrEnum):
    """In which part of a generation something breaks."""

    PREFILL = "prefill"
    """The victim has begun to read the prompt; there is no token yet."""
    DECODE = "decode"
    """As soon as the client has its token number n."""
    IN_FLIGHT = "in-flight"
    """Half a loop time after that: the step for token n + 1 is on its way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a fault happens. ``token``: how many tokens the client has by then, 0 in prefill."""

    where: Where
    token: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong, at a node that is named or at whoever is a hop by then."""

    kind: FaultKind
    at: Moment
    node: str | None = None
    """A member's name; None: see ``hop``."""
    hop: int | None = None
    """Index in the chain at that moment; None: see ``node``."""
    for_s: float | None = None
    """It ends after so long; None: never."""
    offset_s: float = 300.0
    """What ``clock`` adds to the victim's wall clock."""
    steps: int = 1
    """How many of the victim's steps run out of memory, for ``oom``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node, or ``count`` alike."""

    name: str
    layers: LayerRange
    count: int = 1
    link: Link | None = None
    """None: the scenario's."""
    nat: Nat = Nat.NONE
    clock_offset_s: float = 0.0
    """How far its wall clock is from everybody else's."""
    compute_ms: float = 0.0
    """Compute time of one step; in memory spent on virtual time, and announced. Real nodes take
    the time that they take."""

    @property
    def members(self) -> tuple[str, ...]:
        """The names of the single nodes: ``a``, or ``a-1``, ``a-2``, ..."""
        if self.count == 1:
            return (self.name,)
        return tuple(f"{self.name}-{number}" for number in range(1, self.count + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the client asks for, once."""

    prompt: str | None = None
    prompt_tokens: int | None = None
    """Instead of a prompt: so many token ids drawn from the scenario's seed."""
    max_tokens: int = 32
    temperature: float = 0.0
    seed: int = 0
    link: Link | None = None
    """None: the scenario's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """All of it. The same scenario and seed give the same run in memory."""

    name: str
    nodes: tuple[Node, ...]
    client: Request = field(default_factory=Request)
    seed: int = 0
    model: str = "tiny"
    """``tiny``: a small random model made by the lab; ``builtin``; else a folder."""
    standby: bool = True
    """Whether the client keeps standbys."""
    link: Link = PRESETS["lan"]
    """Of everybody who has none of its own."""
    ways: Mapping[tuple[str, str], Link] = field(default_factory=dict)
    """Pairs of members (or of names with a count: all of it) that are not what their links say;
    for both directions."""
    faults: tuple[Fault, ...] = ()

    @property
    def members(self) -> dict[str, Node]:
        """Every single node by its name, in the order of the file."""
        return {name: node for node in self.nodes for name in node.members}

    def link_of(self, member: str) -> Link:
        """The access link of a node or of the client."""
        own = self.client.link if member == CLIENT else self.members[member].link
        return own or self.link

    def way(self, sender: str, receiver: str) -> Way:
        """What bytes meet on the way from one participant to another."""
        for pair in ((sender, receiver), (receiver, sender)):
            for names in ((a, b) for a in self._names(pair[0]) for b in self._names(pair[1])):
                if names in self.ways:
                    return way(self.ways[names], self.ways[names])
        return way(self.link_of(sender), self.link_of(receiver))

    def _names(self, member: str) -> tuple[str, ...]:
        if member == CLIENT:
            return (CLIENT,)
        name = self.members[member].name
        return (member,) if member == name else (member, name)
