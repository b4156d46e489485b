"""What Prometheus can ask: answers of this gateway, and the peers as its client sees them.

One registry per app. Peers are read when they are asked for; their names are ids, which nobody can
choose freely.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from p2pnode.client.events import ChainChosen, Done, Event, Token
from p2pnode.client.peers import Observed
from p2pnode.errors import P2PNodeError
from p2pnode.gateway.peer_metrics import Peers

MAX_HOPS = 1000
"""Peers and layers that are counted by name, of all that ever computed for us."""
OTHERS = ("others", "")
TTFT_EDGES_S = (0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The counters of one gateway."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._responses = _counter(registry, "http_responses", "HTTP answers by status.", "status")
        self._errors = _counter(registry, "errors", "Answers that failed, by kind.", "kind")
        self._answers = _counter(registry, "answers", "Complete answers.", "finish_reason")
        self._tokens = _counter(registry, "tokens", "Tokens of answers.")
        self._prompt_tokens = _counter(registry, "prompt_tokens", "Tokens of prompts.")
        self._cached = _counter(registry, "cached_tokens", "Of the prompts: known to the hops.")
        self._failovers = _counter(registry, "failovers", "Chains mended within an answer.")
        self._hedges = _counter(registry, "hedges", "Steps asked of a standby as well.")
        self._guesses = _counter(registry, "guesses", "Guessed tokens by outcome.", "outcome")
        self._steps = _counter(registry, "hop_steps", "Steps of hops.", "peer", "layers")
        self._compute = _counter(
            registry, "hop_compute_seconds", "Time hops computed for us.", "peer", "layers"
        )
        self._queue = _counter(
            registry, "hop_queue_seconds", "Time our steps waited at hops.", "peer", "layers"
        )
        self._ttft = Histogram(
            "p2pnode_ttft_seconds", "Time to the first token.", buckets=TTFT_EDGES_S,
            registry=registry,
        )  # fmt: skip
        self._hops: set[tuple[str, str]] = set()
        self._running = Gauge(
            "p2pnode_answers_running", "Requests being answered.", registry=registry
        )
        self._peers = Peers()
        registry.register(self._peers)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """While a request is answered."""
        with self._running.track_inprogress():
            yield

    def responded(self, status: int) -> None:
        """An HTTP answer has begun."""
        self._responses.labels(str(status)).inc()

    def failed(self, error: P2PNodeError) -> None:
        """An answer could not be given, or was cut."""
        self._errors.labels(error.kind).inc()

    def note(self, event: Event) -> None:
        """Something of a running answer."""
        if isinstance(event, Token):
            self._tokens.inc()
        elif isinstance(event, ChainChosen):
            if event.failovers:
                self._failovers.inc()
        else:
            self._ended(event)

    def _ended(self, done: Done) -> None:
        self._answers.labels(done.finish_reason).inc()
        self._prompt_tokens.inc(done.prompt_tokens)
        self._cached.inc(done.cached_tokens)
        self._hedges.inc(done.hedges)
        self._guesses.labels("right").inc(done.guesses_right)
        self._guesses.labels("wrong").inc(done.guesses_wrong)
        self._ttft.observe(done.ttft_s)
        for hop in done.hops:
            labels = self._named(hop.peer, str(hop.layers))
            self._steps.labels(*labels).inc(hop.num_steps)
            self._compute.labels(*labels).inc(hop.compute_s)
            self._queue.labels(*labels).inc(hop.queue_s)

    def _named(self, peer: str, layers: str) -> tuple[str, str]:
        """Labels of a hop; there is room for so many, since peers come and go for ever."""
        if len(self._hops) < MAX_HOPS:
            self._hops.add((peer, layers))
        return (peer, layers) if (peer, layers) in self._hops else OTHERS

    def render(self, observed: Observed | None, num_missing: int) -> bytes:
        """All of it in Prometheus' text format; None: we are in no swarm."""
        self._peers.observed, self._peers.num_missing = observed, num_missing
        return generate_latest(self.registry)


def _counter(registry: CollectorRegistry, name: str, what: str, *labels: str) -> Counter:
    return Counter(f"p2pnode_{name}", what, labels, registry=registry)
