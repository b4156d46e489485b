"""A signed statement: "this peer has stopped answering me, at this sequence".

Big endian: accuser's public key (32), accused's (32), sequence (8), Ed25519 signature (64).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from p2pnode.errors import WireError
from p2pnode.gossip.digest import Sign, key_of, peer_of_key
from p2pnode.trust.signatures import SIGNATURE_BYTES, is_signed
from p2pnode.types import PeerId

_DOMAIN = b"p2pnode/suspicion/1\0"
_BODY = struct.Struct(">32s32sQ")
SUSPICION_BYTES = _BODY.size + SIGNATURE_BYTES


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Who accuses whom, and the bytes that say it."""

    accuser: PeerId
    accused: PeerId
    sequence: int
    data: bytes


def seal_suspicion(accuser: PeerId, accused: PeerId, sequence: int, sign: Sign) -> Suspicion:
    """Our own accusation."""
    body = _BODY.pack(key_of(accuser), key_of(accused), sequence)
    return Suspicion(accuser, accused, sequence, body + sign(_DOMAIN + body))


def read_suspicion(data: bytes) -> Suspicion:
    """Check the form, not the signature; raises WireError."""
    if len(data) != SUSPICION_BYTES:
        raise WireError(f"suspicion of {len(data)} bytes, not {SUSPICION_BYTES}")
    accuser, accused, sequence = _BODY.unpack_from(data)
    return Suspicion(peer_of_key(accuser), peer_of_key(accused), sequence, data)


def is_genuine_suspicion(suspicion: Suspicion) -> bool:
    """Whether the accuser itself has signed it."""
    body, signature = suspicion.data[: _BODY.size], suspicion.data[_BODY.size :]
    return is_signed(_DOMAIN + body, signature, key_of(suspicion.accuser))
