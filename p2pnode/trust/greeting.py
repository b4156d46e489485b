"""What members of a private swarm say at the beginning of each stream, sealed and signed.

Sealed (XChaCha20-Poly1305) under a key made from the swarm's id, which strangers do not know: they
can neither read a greeting nor make one, and are told nothing, not even that they are strangers.
Inside: a time, what has been heard (`news.News.digest`), a warrant, and a signature by the peer's
own key over these and protocol, both keys, our nonce, and the nonce that is answered.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from enum import IntEnum

import nacl.bindings
import nacl.exceptions

from p2pnode.errors import BadWarrant, Unwelcome
from p2pnode.trust.grants import MAX_WARRANT_BYTES, Sign, Warrant, read_warrant
from p2pnode.trust.news import DIGEST_BYTES
from p2pnode.trust.signatures import SIGNATURE_BYTES, is_signed

NONCE_BYTES = 16

_DOMAIN = b"p2pnode/greeting/1\0"
_SEAL_NONCE_BYTES = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
_SEAL_BYTES = _SEAL_NONCE_BYTES + nacl.bindings.crypto_aead_xchacha20poly1305_ietf_ABYTES
_HEAD = struct.Struct(f">Q{DIGEST_BYTES}s{SIGNATURE_BYTES}s")
_GREETING, _DENIAL = b"g", b"d"
MAX_BYTES = _SEAL_BYTES + 1 + _HEAD.size + MAX_WARRANT_BYTES


class Denial(IntEnum):
    """Why a member is not let in; told to members only."""

    EXPIRED = 1
    REVOKED = 2
    USED = 3
    RIGHT = 4
    CLOCK = 5
    REPLAYED = 6
    TOO_OFTEN = 7

    @property
    def words(self) -> str:
        """For the one who is not let in."""
        return _WORDS[self]


_NEW = "ask an admin of the swarm for a new one"
_WORDS = {
    Denial.EXPIRED: f"the invite has expired: {_NEW}",
    Denial.REVOKED: "the invite has been revoked by an admin of the swarm",
    Denial.USED: f"the invite has been used by somebody else: {_NEW}, and tell them",
    Denial.RIGHT: f"the invite does not allow that: {_NEW}",
    Denial.CLOCK: "the clocks of both machines differ: set them (NTP)",
    Denial.REPLAYED: "the greeting was used before",
    Denial.TOO_OFTEN: "too many greetings in a short time",
}


@dataclass(frozen=True, slots=True)
class Occasion:
    """One stream, seen by who greets; nothing that is said on one is worth anything on another."""

    swarm: bytes
    protocol: str
    speaker: bytes
    """The 32-byte key of the peer that greets."""
    listener: bytes
    nonce: bytes
    answers: bytes = b""
    """The nonce of the greeting that is answered; empty for the first one."""

    @property
    def bound(self) -> bytes:
        """What the seal is bound to, and the signature."""
        nonces = bytes([len(self.answers)]) + self.answers + self.nonce
        keys = self.speaker + self.listener
        return _DOMAIN + self.swarm + keys + nonces + self.protocol.encode()


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a greeting says, when all its signatures are good."""

    time_ms: int
    digest: bytes
    warrant: Warrant


def greet(occasion: Occasion, greeting: Greeting, sign: Sign) -> bytes:
    """The sealed greeting; signed with the speaker's key, in which its warrant ends."""
    encoded = greeting.warrant.encode()
    told = struct.pack(">Q", greeting.time_ms) + greeting.digest + encoded
    head = _HEAD.pack(greeting.time_ms, greeting.digest, sign(occasion.bound + told))
    return _seal(occasion, _GREETING + head + encoded)


def deny(occasion: Occasion, denial: Denial) -> bytes:
    """A sealed no, instead of a greeting."""
    return _seal(occasion, _DENIAL + bytes([denial]))


def read_greeting(occasion: Occasion, data: bytes) -> Greeting:
    """A greeting by the occasion's speaker.

    Raises BadWarrant when it is none that a member of this swarm has made for this occasion, and
    Unwelcome when the speaker does not let us in.
    """
    plain = _unseal(occasion, data)
    kind, rest = plain[:1], plain[1:]
    if kind == _DENIAL and len(rest) == 1:
        try:
            denial = Denial(rest[0])
        except ValueError as error:
            raise BadWarrant("denied for a reason that we do not know") from error
        raise Unwelcome(denial.words)
    if kind != _GREETING or len(rest) < _HEAD.size:
        raise BadWarrant("not a greeting")
    time_ms, digest, signature = _HEAD.unpack_from(rest)
    encoded = rest[_HEAD.size :]
    warrant = read_warrant(occasion.swarm, encoded)
    if warrant.subject != occasion.speaker:
        raise BadWarrant("shows the warrant of another peer")
    told = struct.pack(">Q", time_ms) + digest + encoded
    if not is_signed(occasion.bound + told, signature, occasion.speaker):
        raise BadWarrant("a greeting that was not signed for this occasion")
    return Greeting(time_ms, digest, warrant)


def _seal(occasion: Occasion, plain: bytes) -> bytes:
    nonce = os.urandom(_SEAL_NONCE_BYTES)
    sealed: bytes = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
        plain, occasion.bound, nonce, _key(occasion.swarm)
    )
    return nonce + sealed


def _unseal(occasion: Occasion, data: bytes) -> bytes:
    if not _SEAL_BYTES < len(data) <= MAX_BYTES:
        raise BadWarrant(f"a greeting of {len(data)} bytes")
    nonce, sealed = data[:_SEAL_NONCE_BYTES], data[_SEAL_NONCE_BYTES:]
    try:
        plain: bytes = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
            sealed, occasion.bound, nonce, _key(occasion.swarm)
        )
    except nacl.exceptions.CryptoError as error:
        raise BadWarrant("a greeting by a stranger") from error
    return plain


def _key(swarm: bytes) -> bytes:
    return hashlib.blake2b(swarm, digest_size=32, person=b"p2pnode greeting").digest()
