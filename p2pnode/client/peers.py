"""What a client has seen of its peers, to be shown: its reputation's records at one moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from p2pnode.net.volume import Volume
from p2pnode.routing.histogram import Histogram
from p2pnode.routing.reputation import PeerRecord, Reputation
from p2pnode.swarm.network import PUBLIC
from p2pnode.types import LayerRange, PeerId, SwarmView


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSeen:
    """One peer that has worked for us, or failed us."""

    peer: PeerId
    layers: LayerRange | None
    """What it announces; None: nothing at the moment."""
    steps: Histogram
    """The times of its decode steps, in seconds, seen from here."""
    there_s: float | None
    """For how long it has been there without a break; None: it is not."""
    uptimes: Histogram
    """How long it had been there each time that it was lost, in seconds."""
    failures: tuple[tuple[str, int], ...]
    """(kind, how many), e.g. ``("timeout", 2)``, the most frequent first."""
    score: float
    """The points that have not faded; 0 is spotless."""
    back_off_s: float
    """For how long it is the last resort from now on; 0: it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The swarm as one client knows it."""

    view: SwarmView
    seen: tuple[PeerSeen, ...]
    rtts_s: Mapping[PeerId, float]
    swarm: str = PUBLIC
    """The swarm's name."""
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    """What has gone over our links, by traffic class."""
    """From here, as measured or predicted; peers of which nothing is known are missing."""


def observed(
    view: SwarmView,
    reputation: Reputation,
    rtt_s: Callable[[PeerId], float | None],
    now: float,
    swarm: str,
) -> Observed:
    """All of it at one moment; ``now`` on reputation's clock."""
    rtts_s = {a.peer: rtt for a in view.announcements if (rtt := rtt_s(a.peer)) is not None}
    seen = peers_seen(reputation, view, now)
    return Observed(view=view, seen=seen, rtts_s=rtts_s, swarm=swarm)


def peers_seen(reputation: Reputation, view: SwarmView, now: float) -> tuple[PeerSeen, ...]:
    """Those with a step or a failure, in the order of their layers; ``now`` on reputation's clock.

    Who was only seen in the directory is left out: that may be thousands.
    """
    layers_of = {a.peer: a.layers for a in view.announcements}
    found = [
        _seen(peer, record, layers_of.get(peer), now)
        for peer, record in reputation.records().items()
        if record.steps.total or record.offences
    ]
    return tuple(sorted(found, key=lambda seen: (seen.layers is None, seen.layers, seen.peer)))


def _seen(peer: PeerId, record: PeerRecord, layers: LayerRange | None, now: float) -> PeerSeen:
    since = record.seen_since
    return PeerSeen(
        peer=peer,
        layers=layers,
        steps=_copy(record.steps),
        there_s=None if since is None or layers is None else now - since,
        uptimes=_copy(record.uptimes),
        failures=tuple((kind.value, count) for kind, count in record.offences.most_common()),
        score=record.score(now),
        back_off_s=max(0.0, record.last_resort_until - now),
    )


def _copy(histogram: Histogram) -> Histogram:
    return replace(histogram, counts=list(histogram.counts))
