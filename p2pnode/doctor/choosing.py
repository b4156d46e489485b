"""From a view of the swarm: which model to probe, what to know of it, what its peers tell. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from p2pnode.doctor.report import PeerTold
from p2pnode.errors import NoChain
from p2pnode.log import escape
from p2pnode.model.source import BUILTIN_NAME, BUILTIN_NAMES
from p2pnode.types import Announcement, ModelSpec, SwarmView

MAX_PEERS_SHOWN = 64
MAX_VOCABULARY = 1 << 24
"""Announcements do not tell how many tokens a model knows."""


def peers_told(view: SwarmView) -> tuple[PeerTold, ...]:
    """What peers say of themselves, in the order of their layers."""
    told = []
    for a in sorted(view.announcements, key=lambda a: (a.layers, a.peer))[:MAX_PEERS_SHOWN]:
        known = view.health.get(a.peer)
        if known is None:
            told.append(PeerTold(peer=a.peer, layers=a.layers, liveness="unknown"))
            continue
        health = known.health
        told.append(
            PeerTold(
                peer=a.peer,
                layers=a.layers,
                liveness=known.liveness.value,
                num_sessions=health.num_sessions,
                device_load=health.device_load,
                vram_used=health.vram_used,
                errors=health.errors,
            )
        )
    return tuple(told)


def served(view: SwarmView, model: str | None) -> Sequence[Announcement]:
    """The announcements of the model to probe: the one asked for, else the one with most peers."""
    if model is None:
        wanted = list(view.announcements)
    else:
        named = BUILTIN_NAME if model in BUILTIN_NAMES else model
        names = {named, Path(named).name}
        wanted = [a for a in view.announcements if a.model in names]
    counts: dict[str, list[Announcement]] = {}
    for a in wanted:
        counts.setdefault(a.fingerprint, []).append(a)
    return max(counts.values(), key=len, default=[])


def not_served(view: SwarmView, model: str | None) -> NoChain:
    """What to say where nobody serves it."""
    names = ", ".join(sorted({escape(a.model, 60) for a in view.announcements}))
    there = f"the swarm serves {names}" if names else "the swarm serves no model"
    wanted = "anything" if model is None else escape(model, 80)
    return NoChain(f"nobody serves {wanted}; {there}. Start: p2pnode serve --layers FIRST-LAST")


def spec_of(a: Announcement) -> ModelSpec:
    """What a session without ends must know of a model, from an announcement of it."""
    return ModelSpec(
        name=a.model,
        fingerprint=a.fingerprint,
        family="",
        num_layers=a.num_layers,
        hidden_size=0,
        vocab_size=MAX_VOCABULARY,
        max_positions=0,
    )
