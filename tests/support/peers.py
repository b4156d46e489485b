"""Announcements and health of a small model's peers, for tests of routing."""

from __future__ import annotations

import dataclasses
from typing import Any

from p2pnode.routing import chain as routing
from p2pnode.routing.chain import Choice
from p2pnode.routing.needs import Avoid, Draw, Needs
from p2pnode.types import (
    Announcement,
    Chain,
    Coordinate,
    Health,
    LayerRange,
    Liveness,
    PeerHealth,
    PeerId,
    SwarmView,
)

FINGERPRINT = "a" * 64
NUM_LAYERS = 9


def peer(name: str) -> PeerId:
    return PeerId("12D3KooW" + name.rjust(44, "1"))


def announced(
    name: str, layers: str, *, latency_s: float = 0.01, room: int = 1000, **changes: Any
) -> Announcement:
    """What a peer of a model of 9 layers announces."""
    plain = Announcement(
        peer=peer(name),
        model="tiny",
        fingerprint=FINGERPRINT,
        num_layers=NUM_LAYERS,
        layers=LayerRange.parse(layers),
        numerics="float32",
        device="cpu",
        device_name="",
        vram_total_bytes=0,
        vram_free_bytes=0,
        kv_capacity_tokens=room,
        flops_per_s=0.0,
        memory_bytes_per_s=0.0,
        latency_s=latency_s,
        tokens_per_s=0.0,
        up_bytes_per_s=0.0,
        down_bytes_per_s=0.0,
        offers_embedding=layers.startswith("0-"),
        offers_head=layers.endswith("-8"),
        addresses=(f"/ip4/192.0.2.7/tcp/4001/p2p/{peer(name)}",),
        protocol=1,
        software="",
        sequence=1,
        issued_at=0.0,
        expires_at=60.0,
    )
    return dataclasses.replace(plain, **changes)


def at(x_s: float, *, error: float = 0.1) -> Coordinate:
    """So many seconds of round trip from the origin, on a line."""
    return Coordinate((x_s, 0.0, 0.0), 0.0, error)


def view(*announcements: Announcement, **health: dict[str, Any]) -> SwarmView:
    """A swarm; the keywords are peers' names, and what their health says besides the usual."""
    known = {}
    for name, fields in health.items():
        fields = {"kv_free_tokens": 1000, **fields}
        liveness = fields.pop("liveness", Liveness.ALIVE)
        said = Health(peer=peer(name), sequence=1, issued_at=0.0, **fields)
        known[said.peer] = PeerHealth(said, liveness)
    return SwarmView(announcements, known)


NEEDS = Needs(model="tiny", fingerprint=FINGERPRINT, num_layers=NUM_LAYERS, num_tokens=100)


def needs(**changes: Any) -> Needs:
    return dataclasses.replace(NEEDS, **changes)


def without(**avoid: frozenset[object]) -> Needs:
    return needs(avoid=Avoid(**avoid))  # type: ignore[arg-type]


def shape(chain: Chain) -> str:
    """``"A 0-2, B 3-8"``"""
    return ", ".join(f"{hop.peer[8:].lstrip('1')} {hop.layers}" for hop in chain.hops)


def choose(swarm: SwarmView, asked: Needs, rng: Draw | None = None) -> Choice:
    """The choice in any numerics class, with its terms."""
    return routing.choose(swarm, asked, routing.tables_of(swarm, asked, None, rng))
