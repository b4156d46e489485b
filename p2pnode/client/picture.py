"""The swarm as plain JSON, for scripts (`p2pnode status --json`) and for the gateway's page; pure.

What peers wrote (names of models and devices, kinds of errors) is passed on as it is: whoever shows
it escapes it. Figures are rounded to what can be read, so that noise makes no new picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from statistics import mode
from typing import Any

from p2pnode.client.peers import Observed, PeerSeen
from p2pnode.types import (
    Announcement,
    LayerRange,
    Liveness,
    PeerHealth,
    PeerId,
    SwarmView,
    uncovered,
)

PUBLIC = "public"
"""The only swarm that needs no membership."""


def picture(observed: Observed, *, max_peers: int | None = None) -> dict[str, Any]:
    """Models with what is covered, and their peers in the order of their layers.

    max_peers: more are counted (``num_peers``), and left out
    """
    view = observed.view
    reputation = {each.peer: each for each in observed.seen}
    announced = in_order(view)
    by_model: dict[str, list[Announcement]] = {}
    for a in announced:
        by_model.setdefault(a.fingerprint, []).append(a)
    return {
        "swarm": PUBLIC,
        "num_peers": len(announced),
        "models": [_model(each, view.health) for each in [*by_model.values()][:max_peers]],
        "peers": [
            {
                **_peer(a),
                "health": _health(view.health.get(a.peer)),
                "rtt_s": _rounded(observed.rtts_s.get(a.peer), 4),
                "reputation": _reputation(reputation.get(a.peer)),
            }
            for a in announced[:max_peers]
        ],
    }


def in_order(view: SwarmView) -> list[Announcement]:
    """The announcements by model and layers, as they are shown."""
    return sorted(view.announcements, key=lambda a: (a.model, a.fingerprint, a.layers, a.peer))


def _peer(a: Announcement) -> dict[str, Any]:
    return {
        "peer": a.peer,
        "model": a.model,
        "fingerprint": a.fingerprint,
        "layers": str(a.layers),
        "dtype": a.numerics,
        "device": a.device,
        "device_name": a.device_name,
        "vram_total_bytes": a.vram_total_bytes,
        "vram_free_bytes": a.vram_free_bytes,
        "latency_s": a.latency_s,
        "tokens_per_s": a.tokens_per_s,
    }


def _model(announced: list[Announcement], health: Mapping[PeerId, PeerHealth]) -> dict[str, Any]:
    """What most of its peers say of it; those that are not there to stay cover nothing."""
    num_layers = mode(a.num_layers for a in announced)
    classes: dict[str, list[LayerRange]] = {a.numerics: [] for a in announced}
    for a in announced:
        if _stays(health.get(a.peer)):
            classes[a.numerics].append(a.layers)
    everything = (layers for ranges in classes.values() for layers in ranges)
    return {
        "model": mode(a.model for a in announced),
        "fingerprint": announced[0].fingerprint,
        "num_layers": num_layers,
        "uncovered": [str(layers) for layers in uncovered(everything, num_layers)],
        "coverage": [
            {"dtype": numerics, "layers": str(layers), "num_peers": num_peers}
            for numerics, ranges in sorted(classes.items())
            for layers, num_peers in depths(ranges, num_layers)
        ],
    }


def _stays(known: PeerHealth | None) -> bool:
    """Of whom gossip has not told, nothing is known against it."""
    if known is None:
        return True
    return known.liveness is Liveness.ALIVE and not known.health.is_draining


def depths(ranges: Iterable[LayerRange], num_layers: int) -> Iterator[tuple[LayerRange, int]]:
    """How many of the ranges hold each layer; neighbours with the same number are one range."""
    change: Counter[int] = Counter()
    for layers in ranges:
        change[min(layers.start, num_layers)] += 1
        change[min(layers.stop, num_layers)] -= 1
    began = depth = 0
    for edge in sorted(change.keys() | {num_layers}):
        if edge > began and (change[edge] or edge == num_layers):
            yield LayerRange(began, edge), depth
            began = edge
        depth += change[edge]


def _health(known: PeerHealth | None) -> dict[str, Any] | None:
    if known is None:
        return None
    health = known.health
    step_s = next((p50_s for _, p50_s, _ in health.step_times), None)
    return {
        "liveness": known.liveness.value,
        "is_draining": health.is_draining,
        "num_sessions": health.num_sessions,
        "queue_depth": health.queue_depth,
        "queue_s": _rounded(health.queue_s, 4),
        "step_s": _rounded(step_s, 4),
        "vram_used": _rounded(health.vram_used, 2),
        "device_load": _rounded(health.device_load, 2),
        "errors": dict(health.errors),
    }


def _reputation(seen: PeerSeen | None) -> dict[str, Any] | None:
    if seen is None:
        return None
    return {
        "score": _rounded(seen.score, 1),
        "failures": dict(seen.failures),
        "back_off_s": round(seen.back_off_s),
        "num_steps": seen.steps.total,
        "step_p50_s": _rounded(seen.steps.quantile(0.5), 4) if seen.steps.total else None,
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
