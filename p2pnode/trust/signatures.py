"""Bare Ed25519 signatures, for what is too small for an envelope; the signer's key is known."""

from __future__ import annotations

from libp2p.crypto.ed25519 import Ed25519PublicKey

SIGNATURE_BYTES = 64


def is_signed(data: bytes, signature: bytes, public_key: bytes) -> bool:
    """Whether the 32-byte Ed25519 key has signed exactly these bytes; False for odd lengths."""
    try:
        return bool(Ed25519PublicKey.from_bytes(public_key).verify(data, signature))
    except ValueError:
        return False
