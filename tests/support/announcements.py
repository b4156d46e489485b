"""Key pairs and announcements for tests."""

from __future__ import annotations

import dataclasses
from typing import Any

from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair

from p2pnode.trust.envelope import peer_of
from p2pnode.types import Announcement, LayerRange

NOW = 1_700_000_000.0
FINGERPRINT = "ab" * 32


def key_pair(number: int) -> KeyPair:
    """The same key for the same number."""
    return create_new_key_pair((number + 1).to_bytes(32, "big"))


def announcement(keys: KeyPair, **changes: Any) -> Announcement:
    """A good announcement of these keys' peer, issued at `NOW`."""
    peer = peer_of(keys.public_key)
    good = Announcement(
        peer=peer,
        model="stories",
        fingerprint=FINGERPRINT,
        num_layers=27,
        layers=LayerRange(0, 9),
        numerics="float32",
        device="cpu",
        device_name="a processor with a long marketing name @ 2.70 GHz",
        vram_total_bytes=16 << 30,
        vram_free_bytes=8 << 30,
        kv_capacity_tokens=65536,
        flops_per_s=1e11,
        memory_bytes_per_s=2e10,
        latency_s=0.004,
        tokens_per_s=200.0,
        up_bytes_per_s=0.0,
        down_bytes_per_s=0.0,
        offers_embedding=True,
        offers_head=False,
        addresses=(
            f"/ip4/127.0.0.1/tcp/4001/p2p/{peer}",
            f"/ip4/127.0.0.1/udp/4001/quic-v1/p2p/{peer}",
        ),
        protocol=1,
        software="p2pnode/0.1.0",
        sequence=1,
        issued_at=NOW,
        expires_at=NOW + 60.0,
    )
    return dataclasses.replace(good, **changes)
