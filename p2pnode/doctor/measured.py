"""What was measured, as values: the input of the rules. Times are seconds; None: not measured."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from p2pnode.errors import P2PNodeError, PeerError
from p2pnode.types import LayerRange, PeerId, SwarmView

PROMPT_TOKENS = 64
"""Of the prompts that are probed with."""
ANSWER_TOKENS = 32
"""What is slow is weighed by what it costs a request of this length, with such a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """Round trips to one peer, one after the other; of small messages, beside everything else."""

    rtts_s: tuple[float, ...] = ()
    num_lost: int = 0
    """Without an answer in time."""

    @property
    def median_s(self) -> float | None:
        """A single late one does not change it."""
        return statistics.median(self.rtts_s) if self.rtts_s else None

    @property
    def num_sent(self) -> int:
        """Answered or not."""
        return len(self.rtts_s) + self.num_lost

    def num_late(self, late_s: float) -> int:
        """Those that took so much longer than the median, or got no answer."""
        median_s = self.median_s or 0.0
        return self.num_lost + sum(rtt_s - median_s > late_s for rtt_s in self.rtts_s)

    def excess_s(self) -> float:
        """By how much a round trip is longer than the median, on average."""
        median_s = self.median_s or 0.0
        return statistics.fmean([rtt_s - median_s for rtt_s in self.rtts_s] or [0.0])


@dataclass(frozen=True, slots=True, kw_only=True)
class HopMeasured:
    """One hop of the probed chain. Times of steps are medians of decode steps."""

    peer: PeerId
    layers: LayerRange
    connect_s: float | None = None
    """To dial it, and to greet."""
    ways: Ways = field(default_factory=Ways)
    """Between it and us."""
    queue_s: float | None = None
    """How long a step waited for the device."""
    compute_s: float | None = None
    way_s: float | None = None
    """One way, from the hop before (from us, to the first)."""
    transfer_s: float | None = None
    """How much longer the rows of the prompt were under way than those of a token."""
    prompt_s: float = 0.0
    """What it has spent on the last prompt, and on what followed it, by its own word."""
    is_carried: bool = False
    """Whether the hop before cannot reach it, so that we carry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainMeasured:
    """A chain through which answers were generated."""

    hops: tuple[HopMeasured, ...]
    num_tokens: int = 0
    """So many were generated, all rounds together."""
    ttft_s: float | None = None
    """From the prompt to the first token, links being open; the best round."""
    token_s: float | None = None
    """Median between tokens."""
    awaited: PeerId | None = None
    """Whose output was still awaited when the time for the probe was over."""
    waited_s: float = 0.0
    """For how long, then, nothing had come of anybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All that the verdict is made from."""

    join_s: float | None = None
    join_error: P2PNodeError | None = None
    """Why no swarm was joined."""
    directory_s: float | None = None
    """How long the directory took to be read."""
    view: SwarmView = field(default_factory=lambda: SwarmView(()))
    """The announcements of the model that was probed, and what gossip says."""
    chain: ChainMeasured | None = None
    errors: tuple[PeerError, ...] = ()
    """What peers were blamed for by the probe's sessions."""
    failure: P2PNodeError | None = None
    """Why there was no chain, or none any more."""
    probed_s: float = 0.0
    """How long it was tried to get tokens."""
    pressure: str = ""
    """What is wrong with this machine's memory; empty: nothing is."""
    device: str = ""
    """What this machine's device does now, and how hot it is; empty: not looked at."""
    own_peers: frozenset[PeerId] = frozenset()
    """Nodes that run in this home."""
    rtt_limit_s: float = 0.5
    """The longest round trip to a hop that is no cause."""
