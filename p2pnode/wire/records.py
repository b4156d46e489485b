"""The bytes of directory records: one announcement, at most 4 KiB with its signature around it."""

from __future__ import annotations

from p2pnode.errors import WireError
from p2pnode.types import Announcement
from p2pnode.wire.codec import decode, encode, register_kind

MAX_RECORD_BYTES = 4096

register_kind("announcement", Announcement)


def encode_announcement(announcement: Announcement) -> bytes:
    """What a peer signs; raises WireError when too long."""
    header, _ = encode(announcement)
    if len(header) > MAX_RECORD_BYTES:
        raise WireError(f"announcement of {len(header)} bytes, at most {MAX_RECORD_BYTES}")
    return header


def decode_announcement(data: bytes) -> Announcement:
    """Raises WireError unless the bytes are exactly one announcement with sane figures."""
    if len(data) > MAX_RECORD_BYTES:
        raise WireError(f"announcement of {len(data)} bytes, at most {MAX_RECORD_BYTES}")
    announcement = decode(data)
    if not isinstance(announcement, Announcement):
        raise WireError(f"not an announcement but a {type(announcement).__name__}")
    layers, count = announcement.layers, announcement.num_layers
    if not layers or layers.stop > count:
        raise WireError(f"announcement.layers: {layers} of {count} layers")
    rates = (announcement.flops_per_s, announcement.memory_bytes_per_s, announcement.tokens_per_s)
    times = (announcement.latency_s, announcement.up_bytes_per_s, announcement.down_bytes_per_s)
    if min(rates + times) < 0:
        raise WireError("announcement: a negative rate or time")
    fingerprint = announcement.fingerprint
    if len(fingerprint) != 64 or not set(fingerprint) <= set("0123456789abcdef"):
        raise WireError("announcement.fingerprint: not 64 hexadecimal digits")
    return announcement
