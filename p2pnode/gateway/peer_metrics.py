"""The peers of the swarm as Prometheus' metrics: read when somebody asks, nothing is counted."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from p2pnode.client.peers import Observed
from p2pnode.types import Announcement, Health, Liveness

MAX_PEERS = 500
"""More are left out, those that gossip does not know first."""
PAGE_TOKENS = 64


class Peers(Collector):
    """Shows what it was given last."""

    def __init__(self) -> None:
        self.observed: Observed | None = None
        """None: we are in no swarm."""
        self.num_missing = 0
        """Layers of the model without a live peer."""

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        is_joined = self.observed is not None
        yield GaugeMetricFamily("p2pnode_joined", "Whether we are in a swarm.", float(is_joined))
        if self.observed is None:
            return
        yield GaugeMetricFamily(
            "p2pnode_missing_layers", "Layers of the model without a live peer.", self.num_missing
        )
        yield from _announced(self.observed)
        yield from _told(self.observed)
        yield from _seen(self.observed)
        yield _sent(self.observed)


def _shown(observed: Observed) -> list[Announcement]:
    known = observed.view.health
    ordered = sorted(observed.view.announcements, key=lambda a: (a.peer not in known, a.peer))
    return ordered[:MAX_PEERS]


def _announced(observed: Observed) -> Iterator[Metric]:
    vram = _gauge("peer_vram_bytes", "Memory of a peer's device.", "peer", "kind")
    speed = _gauge("peer_tokens_per_second", "What a peer announces for its layers.", "peer")
    rtt = _gauge("peer_rtt_seconds", "Round trip from here.", "peer")
    capacity = _gauge("peer_kv_pages", "KV cache of a peer in pages of 64 tokens.", "peer")
    for each in _shown(observed):
        vram.add_metric([each.peer, "total"], each.vram_total_bytes)
        vram.add_metric([each.peer, "free"], each.vram_free_bytes)
        speed.add_metric([each.peer], each.tokens_per_s)
        capacity.add_metric([each.peer], each.kv_capacity_tokens // PAGE_TOKENS)
        if each.peer in observed.rtts_s:
            rtt.add_metric([each.peer], observed.rtts_s[each.peer])
    yield from (vram, speed, rtt, capacity)


def _told(observed: Observed) -> Iterator[Metric]:
    """By gossip."""
    alive = _gauge("peer_alive", "Whether a peer is believed to be there.", "peer")
    sessions = _gauge("peer_sessions", "Sessions on a peer.", "peer")
    queue = _gauge("peer_queue_depth", "Steps that wait for a peer's device.", "peer")
    queue_s = _gauge("peer_queue_seconds", "How long a step has waited lately, mean.", "peer")
    free = _gauge("peer_kv_pages_free", "Of its KV cache.", "peer")
    errors = _gauge("peer_errors", "A peer's errors in the last minutes.", "peer", "kind")
    for each in _shown(observed):
        known = observed.view.health.get(each.peer)
        if known is None:
            continue
        health: Health = known.health
        alive.add_metric([each.peer], float(known.liveness is Liveness.ALIVE))
        sessions.add_metric([each.peer], health.num_sessions)
        queue.add_metric([each.peer], health.queue_depth)
        queue_s.add_metric([each.peer], health.queue_s)
        if health.kv_free_tokens is not None:
            free.add_metric([each.peer], health.kv_free_tokens // PAGE_TOKENS)
        for kind, count in health.errors:
            errors.add_metric([each.peer, kind], count)
    yield from (alive, sessions, queue, queue_s, free, errors)


def _seen(observed: Observed) -> Iterator[Metric]:
    """By our own client."""
    steps = HistogramMetricFamily(
        "p2pnode_peer_step_seconds", "Decode steps of a peer, seen from here.", labels=["peer"]
    )
    failures = _gauge("peer_failures", "Failures of a peer, seen from here.", "peer", "kind")
    for each in observed.seen[:MAX_PEERS]:
        total, buckets = 0, []
        for edge, count in zip((*each.steps.edges, "+Inf"), each.steps.counts, strict=True):
            total += count
            buckets.append((str(edge), float(total)))
        steps.add_metric([each.peer], buckets, sum_value=None)
        for kind, count in each.failures:
            failures.add_metric([each.peer, kind], count)
    yield from (steps, failures)


def _sent(observed: Observed) -> Metric:
    sent = CounterMetricFamily(
        "p2pnode_link_bytes", "Bytes over links.", labels=["traffic", "direction"]
    )
    for traffic, volume in observed.volumes.items():
        name = traffic.split("/")[2]  # /p2pnode/chain/1
        sent.add_metric([name, "sent"], volume.sent)
        sent.add_metric([name, "received"], volume.received)
    return sent


def _gauge(name: str, what: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"p2pnode_{name}", what, labels=labels)
