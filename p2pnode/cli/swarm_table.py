"""A swarm on the command line: what `status` reads and shows."""

from __future__ import annotations

import asyncio
from typing import Any

from p2pnode.cli.output import Output
from p2pnode.client.peers import Observed
from p2pnode.client.picture import PUBLIC, in_order, picture
from p2pnode.config import ClientConfig
from p2pnode.log import escape
from p2pnode.swarm.p2p_network import client_network
from p2pnode.swarm.view import SwarmReader
from p2pnode.types import Announcement, SwarmView


async def read_swarm(config: ClientConfig) -> tuple[str, SwarmView]:
    """The name of the swarm, and what its directory says now; raises JoinFailed."""
    clock = asyncio.get_running_loop().time
    async with client_network(config).join() as joined:
        reader = SwarmReader(joined.directory, wall_clock=config.wall_clock, monotonic=clock)
        return joined.inside.name if joined.inside else PUBLIC, await reader.view()


def show(view: SwarmView, *, now: float, output: Output, name: str = PUBLIC) -> None:
    """Print a swarm; ``now`` is seconds since the epoch."""
    peers = in_order(view)
    found = {**picture(Observed(view=view, seen=(), rtts_s={})), "swarm": name}
    for fields, announcement in zip(found["peers"], peers, strict=True):
        fields |= _whereabouts(announcement, now)
    output.result(found)
    if not peers:
        output.say("nobody serves a model here; start: p2pnode serve --layers FIRST-LAST")
        return
    output.table(
        ("PEER", "LAYERS", "DTYPE", "DEVICE", "FREE", "STEP", "TOKENS/S", "AGE"),
        [_row(announcement, now) for announcement in peers],
    )
    for model in found["models"]:
        output.say(_coverage(model))


def _whereabouts(a: Announcement, now: float) -> dict[str, Any]:
    """What only scripts are told: addresses are no picture's business."""
    return {"addresses": list(a.addresses), "age_s": _age_s(a, now)}


def _age_s(a: Announcement, now: float) -> float:
    return max(0.0, now - a.issued_at)


def _row(a: Announcement, now: float) -> tuple[str, ...]:
    memory = f"{a.vram_free_bytes / 1e9:.1f} of {a.vram_total_bytes / 1e9:.1f} GB"
    return (
        a.peer.short,
        str(a.layers),
        escape(a.numerics, 24),
        escape(f"{a.device} {a.device_name}", 32),
        f"{memory} RAM" if a.device == "cpu" else memory,
        f"{a.latency_s * 1e3:.1f} ms",
        f"{a.tokens_per_s:.0f}",
        f"{_age_s(a, now):.0f} s",
    )


def _coverage(model: dict[str, Any]) -> str:
    name = f"{escape(model['model'], 80)} ({model['fingerprint'][:8]})"
    layers = f"{model['num_layers']} layers"
    if not model["uncovered"]:
        return f"{name}: {layers}, all covered"
    gaps = ", ".join(model["uncovered"])
    return f"{name}: {layers}; nobody serves {gaps}"
