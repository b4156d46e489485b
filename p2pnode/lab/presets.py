"""Access links of a lab: what a volunteer's line does to bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One participant's way to the others.

    Two participants on links of the same kind are ``delay_ms`` apart, one way: each end is half
    of a way. Rates are those of the participant's own line, shared by all its peers.
    """

    delay_ms: float = 0.0
    """One way."""
    jitter: float = 0.0
    """Share of the delay by which it varies: 0.5 is 50 % more or less, evenly spread."""
    loss: float = 0.0
    """Share of packets that are lost, and so sent again by the transport."""
    up_mbit: float = math.inf
    down_mbit: float = math.inf


PRESETS: Mapping[str, Link] = MappingProxyType(
    {
        "lan": Link(delay_ms=0.2, up_mbit=1000, down_mbit=1000),
        "fiber": Link(delay_ms=10, up_mbit=100, down_mbit=1000),
        "cable": Link(delay_ms=20, up_mbit=20, down_mbit=200),
        "5g": Link(delay_ms=30, jitter=0.5, up_mbit=20, down_mbit=100),
        "far": Link(delay_ms=250, up_mbit=50, down_mbit=500),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One direction between two participants."""

    delay_ms: float
    jitter: float
    loss: float
    mbit: float
    """The slower of the sender's up and the receiver's down; infinite when nobody limits it."""


def way(sender: Link, receiver: Link) -> Way:
    """What bytes meet on the way from one participant to another."""
    return Way(
        delay_ms=(sender.delay_ms + receiver.delay_ms) / 2,
        jitter=_jitter(sender, receiver),
        loss=1.0 - math.sqrt((1.0 - sender.loss) * (1.0 - receiver.loss)),
        mbit=min(sender.up_mbit, receiver.down_mbit),
    )


def _jitter(sender: Link, receiver: Link) -> float:
    """Each end's own share of its half of the delay."""
    whole_ms = sender.delay_ms + receiver.delay_ms
    varying_ms = sender.jitter * sender.delay_ms + receiver.jitter * receiver.delay_ms
    return varying_ms / whole_ms if whole_ms else 0.0
