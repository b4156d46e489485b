"""Signed envelopes (libp2p's, RFC 2), with Ed25519 keys only.

An envelope has exactly one valid form: what `seal` writes. Anyone could append fields that the
signature does not cover; two forms of one record would look like a peer that contradicts itself.
"""

from __future__ import annotations

import libp2p.peer.pb.envelope_pb2 as envelope_pb2
from google.protobuf.message import DecodeError
from libp2p.crypto.ed25519 import Ed25519PublicKey
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.pb import crypto_pb2
from libp2p.peer.envelope import Envelope, make_unsigned, unmarshal_envelope
from libp2p.peer.id import ID

from p2pnode.errors import BadRecord
from p2pnode.types import PeerId

PAYLOAD_TYPE = b"/p2pnode/record"


def seal(key_pair: KeyPair, payload: bytes, domain: str) -> bytes:
    """Sign a payload for one domain; the envelope holds the public key, so the peer id too."""
    signature = key_pair.private_key.sign(make_unsigned(domain, PAYLOAD_TYPE, payload))
    envelope = Envelope(key_pair.public_key, PAYLOAD_TYPE, payload, signature)
    return bytes(envelope.marshal_envelope())


def unseal(data: bytes, domain: str, max_bytes: int) -> tuple[PeerId, bytes]:
    """Who signed it, and the payload.

    Raises BadRecord on anything but an envelope that `seal` made for this domain.
    """
    if len(data) > max_bytes:
        raise BadRecord(f"envelope of {len(data)} bytes, at most {max_bytes}")
    try:
        # The key's type is looked at before any key is built: only Ed25519 is cheap to refuse.
        key_type = int(envelope_pb2.Envelope.FromString(data).public_key.Type)
        if key_type != crypto_pb2.KeyType.Ed25519:
            raise BadRecord("envelope is not signed with an Ed25519 key")
        envelope = unmarshal_envelope(data)
        envelope.validate(domain)
        is_canonical = envelope.marshal_envelope() == data
    except (DecodeError, ValueError, TypeError) as error:
        raise BadRecord(f"envelope is not valid: {type(error).__name__}") from error
    if not is_canonical or envelope.payload_type != PAYLOAD_TYPE:
        raise BadRecord("envelope is of another form than ours")
    return peer_of(envelope.public_key), bytes(envelope.raw_payload)


def peer_of(public_key: Ed25519PublicKey) -> PeerId:
    """The peer id that belongs to an Ed25519 public key."""
    return PeerId(ID.from_pubkey(public_key).to_base58())
