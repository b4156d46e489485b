"""An invite: one line of text that is enough to join a private swarm. Whoever reads it can.

``p2pnode1-`` and, in URL-safe base64: flags, name, swarm, the one-time key (where it is a
bearer's), the warrant that ends in that key, addresses of peers, and a checksum. Blanks and line
breaks that mail puts in are no harm.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from dataclasses import dataclass, field

from p2pnode.errors import BadInvite, BadWarrant
from p2pnode.trust.grants import GRANT_BYTES, KEY_BYTES, MAX_GRANTS, Warrant, read_warrant

PREFIX = "p2pnode1-"
MAX_CHARS = 8192
MAX_ADDRESSES = 8
MAX_ADDRESS_BYTES = 512
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")

_CHECKSUM_BYTES = 4
_HAS_SECRET = 1


@dataclass(frozen=True, slots=True)
class Invite:
    """What an invite says."""

    name: str
    """What the swarm is called; strangers never see it."""
    warrant: Warrant
    addresses: tuple[str, ...]
    """Of peers to join through."""
    secret: bytes = field(default=b"", repr=False)
    """The one-time key's seed; empty where the warrant is for a key that its holder has."""

    def __post_init__(self) -> None:
        if NAME.fullmatch(self.name) is None:
            raise BadInvite("a swarm's name has 1 to 40 letters, digits, dots, dashes")
        if len(self.addresses) > MAX_ADDRESSES or any(
            len(each.encode()) > MAX_ADDRESS_BYTES for each in self.addresses
        ):
            raise BadInvite(f"an invite has at most {MAX_ADDRESSES} addresses")

    @property
    def text(self) -> str:
        """The line. A secret, where there is one in it."""
        name, grants = self.name.encode(), self.warrant.encode()
        payload = bytes([_HAS_SECRET if self.secret else 0, len(name)]) + name
        payload += self.warrant.swarm + self.secret
        payload += bytes([len(self.warrant.grants)]) + grants + bytes([len(self.addresses)])
        for address in self.addresses:
            data = address.encode()
            payload += struct.pack(">H", len(data)) + data
        whole = payload + _checksum(payload)
        return PREFIX + base64.urlsafe_b64encode(whole).decode().rstrip("=")


def is_invite(text: str) -> bool:
    """Whether a text looks like one, rather than a file's or a swarm's name."""
    return text.lstrip().startswith(PREFIX)


def read_invite(text: str) -> Invite:
    """Raises BadInvite, which never quotes what it has read."""
    if len(text) > MAX_CHARS:
        raise BadInvite(f"an invite has at most {MAX_CHARS} characters, this has {len(text)}")
    joined = "".join(text.split())
    if not joined.startswith(PREFIX):
        raise BadInvite(f"not an invite of this version: one begins with {PREFIX}")
    try:
        encoded = joined.removeprefix(PREFIX).encode("ascii")
        padded = encoded + b"=" * (-len(encoded) % 4)
        whole = base64.b64decode(padded, altchars=b"-_", validate=True)
    except (ValueError, binascii.Error) as error:
        raise BadInvite("the invite has characters that belong to none: copy it again") from error
    payload, checksum = whole[:-_CHECKSUM_BYTES], whole[-_CHECKSUM_BYTES:]
    if checksum != _checksum(payload):
        raise BadInvite("the invite is not whole, or was changed: copy it again")
    try:
        invite = _read(_Bytes(payload))
    except (ValueError, BadWarrant) as error:
        raise BadInvite(f"the invite is not one of ours: {error}") from error
    if invite.text != joined:
        raise BadInvite("the invite is of another form than ours")
    return invite


def _read(data: _Bytes) -> Invite:
    flags = data.byte()
    name = data.take(data.byte()).decode("ascii")
    swarm = data.take(KEY_BYTES)
    secret = data.take(KEY_BYTES) if flags & _HAS_SECRET else b""
    num_grants = data.byte()
    if num_grants > MAX_GRANTS:
        raise ValueError(f"{num_grants} grants")
    warrant = read_warrant(swarm, data.take(num_grants * GRANT_BYTES))
    num_addresses = data.byte()
    if num_addresses > MAX_ADDRESSES:
        raise ValueError(f"{num_addresses} addresses")
    addresses = [
        data.take(int.from_bytes(data.take(2), "big")).decode() for _ in range(num_addresses)
    ]
    data.end()
    return Invite(name, warrant, tuple(addresses), secret)


class _Bytes:
    """Bytes to be read from the front; ValueError where they end too early."""

    def __init__(self, data: bytes) -> None:
        self._left = data

    def take(self, num_bytes: int) -> bytes:
        if num_bytes > len(self._left):
            raise ValueError("it ends too early")
        taken, self._left = self._left[:num_bytes], self._left[num_bytes:]
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def end(self) -> None:
        if self._left:
            raise ValueError("it does not end where it should")


def _checksum(payload: bytes) -> bytes:
    return hashlib.blake2b(PREFIX.encode() + payload, digest_size=_CHECKSUM_BYTES).digest()
