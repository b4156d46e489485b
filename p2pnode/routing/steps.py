"""How long a step takes at a peer, and what is usual: from what peers measured of themselves."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from p2pnode.types import Announcement, Health, LayerRange, SwarmView

MIN_MEASURED_PEERS = 3
"""Fewer say nothing about what is usual."""
P95_SIGMAS = 1.645
"""The 95th percentile of a normal distribution, in standard deviations above the median."""
OUTLIER = 3.0
"""Peers that are so many times slower than the median do not count: with few peers measured, a
very slow one would make its own lateness usual."""


def step_s(announcement: Announcement, health: Health | None, num_tokens: int) -> float:
    """The median compute time of a step of so many tokens through the peer's whole block.

    As its health says; else as it announced when it started, for each token alike.
    """
    if health is None or not health.step_times:
        return announcement.latency_s
    return interpolated(health.step_times, num_tokens)[0]


def interpolated(
    step_times: Sequence[tuple[int, float, float]], num_tokens: int
) -> tuple[float, float]:
    """(p50, p95) for a count of tokens between those measured.

    Below the smallest count as long as that one; beyond the largest in proportion.
    """
    below = step_times[0]
    for above in step_times:
        if above[0] >= num_tokens:
            share = (num_tokens - below[0]) / max(above[0] - below[0], 1)
            share = min(max(share, 0.0), 1.0)
            return (
                below[1] + share * (above[1] - below[1]),
                below[2] + share * (above[2] - below[2]),
            )
        below = above
    times = num_tokens / max(below[0], 1)
    return below[1] * times, below[2] * times


def usual_s(view: SwarmView, fingerprint: str, layers: LayerRange, num_tokens: int) -> float | None:
    """Mean + 2 sigma of the compute time of such a step, of the peers measured for these layers.

    Scaled to the number of layers. Sigma has both parts: how a peer's own steps vary, and how
    peers differ. None while fewer than 3 peers are measured.
    """
    means, variances = [], []
    for a in view.of_model(fingerprint).announcements:
        known = view.health.get(a.peer)
        overlaps = a.layers.start < layers.stop and layers.start < a.layers.stop
        if known is None or not known.health.step_times or not overlaps:
            continue
        p50, p95 = interpolated(known.health.step_times, num_tokens)
        share = len(layers) / len(a.layers)
        means.append(p50 * share)
        variances.append(((p95 - p50) * share / P95_SIGMAS) ** 2)
    if len(means) < MIN_MEASURED_PEERS:
        return None
    most = OUTLIER * statistics.median(means)
    kept = [index for index, mean in enumerate(means) if mean <= most]
    mean = statistics.fmean(means[index] for index in kept)
    own = statistics.fmean(variances[index] for index in kept)
    between = statistics.pvariance([means[index] for index in kept], mean)
    return float(mean + 2.0 * (own + between) ** 0.5)
