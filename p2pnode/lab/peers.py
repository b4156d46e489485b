"""Announcements as simulated peers make them."""

from __future__ import annotations

from p2pnode.types import Announcement, LayerRange, PeerId

NUM_LAYERS = 27
FIRST_THIRD = LayerRange(0, 9)
FINGERPRINT = "0" * 64
TTL_S = 60.0


def part(number: int) -> LayerRange:
    """What the peer of that number serves: a third of the model, every seventh one a half."""
    if number % 7 == 6:
        return LayerRange(0, 14) if number % 2 else LayerRange(13, NUM_LAYERS)
    return LayerRange(9 * (number % 3), 9 * (number % 3) + 9)


def announcement_of(
    peer: PeerId,
    layers: LayerRange = FIRST_THIRD,
    *,
    issued_at: float,
    sequence: int = 1,
    latency_s: float = 0.01,
    addresses: tuple[str, ...] = (),
) -> Announcement:
    """What a CPU of the built-in model's size says of itself."""
    return Announcement(
        peer=peer,
        model="lab",
        fingerprint=FINGERPRINT,
        num_layers=NUM_LAYERS,
        layers=layers,
        numerics="float32",
        device="cpu",
        device_name="a processor with a long marketing name @ 2.70 GHz",
        vram_total_bytes=16 << 30,
        vram_free_bytes=8 << 30,
        kv_capacity_tokens=1 << 16,
        flops_per_s=1e11,
        memory_bytes_per_s=2e10,
        latency_s=latency_s,
        tokens_per_s=1.0 / latency_s,
        up_bytes_per_s=0.0,
        down_bytes_per_s=0.0,
        offers_embedding=layers.start == 0,
        offers_head=layers.stop == NUM_LAYERS,
        addresses=addresses,
        protocol=1,
        software="p2pnode/0.1.0",
        sequence=sequence,
        issued_at=issued_at,
        expires_at=issued_at + TTL_S,
    )
