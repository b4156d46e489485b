"""What the client has seen of its peers: for people a small table, for scripts the histograms."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from p2pnode.cli.output import Output
from p2pnode.client.peers import PeerSeen
from p2pnode.routing.histogram import Histogram

COLUMNS = (
    "PEER",
    "LAYERS",
    "STEPS",
    "P50 MS",
    "P95 MS",
    "1 MS TO 16 S",
    "THERE FOR",
    "LOST AFTER",
    "FAILURES",
    "BACK-OFF",
)
MEANING = """\
What this client has seen of them. Steps: each bar counts those up to 1, 2, 4 ms and so on, the last
one all above 16 s; half of the steps took at most P50. There for: how long without a break, as far
as we looked; lost after: how long it had been there when we lost it. Who backs off is used only if
there is nobody else.
"""
BARS = "▁▂▃▄▅▆▇█"
NONE = "-"
UNITS = ((7 * 86400.0, "w"), (86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def show_peers_seen(output: Output, peers: Sequence[PeerSeen]) -> None:
    """A row for each; nothing when there are none."""
    if not peers:
        return
    output.say("")
    output.table(COLUMNS, [_row(seen) for seen in peers])
    output.say(MEANING)


def peers_seen_fields(peers: Sequence[PeerSeen]) -> list[dict[str, Any]]:
    """The same for scripts, in seconds."""
    return [
        {
            "peer": seen.peer,
            "layers": None if seen.layers is None else str(seen.layers),
            "num_steps": seen.steps.total,
            "step_p50_s": seen.steps.quantile(0.5),
            "step_p95_s": seen.steps.quantile(0.95),
            "steps": _histogram_fields(seen.steps),
            "there_s": seen.there_s,
            "uptimes": _histogram_fields(seen.uptimes),
            "failures": dict(seen.failures),
            "score": seen.score,
            "back_off_s": seen.back_off_s,
        }
        for seen in peers
    ]


def bars(histogram: Histogram) -> str:
    """One character per bucket: blank for none, the highest bar for the fullest."""
    top = max(histogram.counts)
    return "".join(
        BARS[(len(BARS) * count - 1) // top] if count else " " for count in histogram.counts
    ).rstrip()


def duration(seconds: float) -> str:
    """``45 s``, ``10 min``, ``2 d``: whole units, rounded down."""
    size, unit = next((each for each in UNITS if seconds >= each[0]), UNITS[-1])
    return f"{int(seconds / size)} {unit}"


def _row(seen: PeerSeen) -> tuple[str, ...]:
    return (
        seen.peer.short,
        NONE if seen.layers is None else str(seen.layers),
        str(seen.steps.total),
        _milliseconds(seen.steps.quantile(0.5)),
        _milliseconds(seen.steps.quantile(0.95)),
        bars(seen.steps) if seen.steps.total else NONE,
        NONE if seen.there_s is None else duration(seen.there_s),
        _ranges(seen.uptimes) or NONE,
        ", ".join(f"{kind} {count}" for kind, count in seen.failures) or NONE,
        duration(seen.back_off_s) if seen.back_off_s else NONE,
    )


def _milliseconds(seconds: float | None) -> str:
    return NONE if seconds is None else f"{seconds * 1e3:.0f}"


def _ranges(uptimes: Histogram) -> str:
    """``up to 1 min: 2, 10 min to 1 h: 1``"""
    names = [duration(edge) for edge in uptimes.edges]
    between = [f"{low} to {high}" for low, high in pairwise(names)]
    buckets = [f"up to {names[0]}", *between, f"over {names[-1]}"]
    pairs = zip(buckets, uptimes.counts, strict=True)
    return ", ".join(f"{bucket}: {count}" for bucket, count in pairs if count)


def _histogram_fields(histogram: Histogram) -> dict[str, Any]:
    return {"edges_s": list(histogram.edges), "counts": list(histogram.counts)}
