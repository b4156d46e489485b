"""Grants and warrants: who may do what in a private swarm, verified without asking anybody.

A **grant** is one signed sentence: the holder of this key may do so much, until then. A **warrant**
is the grants from the founder, whose public key is the swarm's id, down to one key. The rules:

- an admin's key grants to others: at most its own right; the depth is bounded;
- the one-time key of an invite passes its grant on once, to the key of whoever uses it (a claim);
- a member passes its grant on to the peers of its own home (a seat), and those to nobody;
- what a key may do is the least of what its grants say: right, time and quota.

The bytes have one form: grants of a fixed layout, one after the other.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from p2pnode.errors import BadWarrant
from p2pnode.trust.signatures import SIGNATURE_BYTES, is_signed

KEY_BYTES = 32
MAX_DEPTH = 3
"""Grants by admins, one below the other: the founder's, an admin's, and one more."""
MAX_GRANTS = 2 * MAX_DEPTH + 1
"""With a claim after each, and a seat."""
FOREVER = (1 << 63) - 1

_DOMAIN = b"p2pnode/grant/1\0"
_BODY = struct.Struct(">BB32sQHI")
GRANT_BYTES = _BODY.size + SIGNATURE_BYTES
MAX_WARRANT_BYTES = MAX_GRANTS * GRANT_BYTES

Sign = Callable[[bytes], bytes]


class Right(IntEnum):
    """What a member may do; each includes the ones before it."""

    USE = 1
    """Open sessions, read the directory."""
    SERVE = 2
    """Announce layers, hold records for others."""
    ADMIN = 3
    """Invite and revoke."""


class Kind(IntEnum):
    """Who passes what on."""

    GRANT = 1
    CLAIM = 2
    SEAT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What each node gives to one member, all its peers together; 0 is without limit."""

    sessions: int = 0
    """At a time."""
    tokens_per_day: int = 0
    """Prompts and answers together, by what sessions were opened for."""

    def __post_init__(self) -> None:
        if not 0 <= self.sessions < 1 << 16 or not 0 <= self.tokens_per_day < 1 << 32:
            raise ValueError("a quota is at most 65535 sessions and 4294967295 tokens per day")

    def within(self, other: Quota) -> Quota:
        """The tighter of both."""
        return Quota(
            sessions=_tighter(self.sessions, other.sessions),
            tokens_per_day=_tighter(self.tokens_per_day, other.tokens_per_day),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One step of a warrant; who issues it is the key of the step before."""

    kind: Kind = Kind.GRANT
    right: Right
    subject: bytes
    """The 32-byte Ed25519 key that it is for."""
    expires_at: int
    """Seconds since the epoch."""
    quota: Quota = field(default_factory=Quota)
    signature: bytes = b""

    @property
    def body(self) -> bytes:
        """What is signed, besides swarm and issuer."""
        quota = self.quota
        return _BODY.pack(
            self.kind,
            self.right,
            self.subject,
            self.expires_at,
            quota.sessions,
            quota.tokens_per_day,
        )

    @classmethod
    def parse(cls, data: bytes) -> Grant:
        """Read `GRANT_BYTES` bytes; ValueError unless they are a grant's."""
        kind, right, subject, expires_at, sessions, tokens_per_day = _BODY.unpack_from(data)
        if expires_at > FOREVER:
            raise ValueError("expires after the end of time")
        return cls(
            kind=Kind(kind),
            right=Right(right),
            subject=subject,
            expires_at=expires_at,
            quota=Quota(sessions=sessions, tokens_per_day=tokens_per_day),
            signature=bytes(data[_BODY.size :]),
        )


@dataclass(frozen=True, slots=True)
class Warrant:
    """Grants from a swarm's founder down to `subject`; empty: the founder itself."""

    swarm: bytes
    grants: tuple[Grant, ...] = ()

    @property
    def subject(self) -> bytes:
        """The key that it ends in."""
        return self.keys[-1]

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The founder's key and those after it."""
        return (self.swarm, *(grant.subject for grant in self.grants))

    @property
    def holder(self) -> bytes:
        """The member: the key that the peers of one home have their seats from."""
        is_seated = bool(self.grants) and self.grants[-1].kind is Kind.SEAT
        return self.keys[-2] if is_seated else self.subject

    @property
    def right(self) -> Right:
        """What the subject may do."""
        return min((grant.right for grant in self.grants), default=Right.ADMIN)

    @property
    def expires_at(self) -> int:
        """Until when, in seconds since the epoch."""
        return min((grant.expires_at for grant in self.grants), default=FOREVER)

    @property
    def quota(self) -> Quota:
        """How much."""
        return functools.reduce(Quota.within, (grant.quota for grant in self.grants), Quota())

    def and_then(self, grant: Grant, sign: Sign) -> Warrant:
        """With one more grant, signed by our subject's key. Raises BadWarrant against the rules."""
        signature = sign(_signed_part(self.swarm, self.subject, grant))
        signed = Grant(
            kind=grant.kind,
            right=grant.right,
            subject=grant.subject,
            expires_at=grant.expires_at,
            quota=grant.quota,
            signature=signature,
        )
        longer = Warrant(self.swarm, (*self.grants, signed))
        longer.check()
        return longer

    def check(self) -> None:
        """Raises BadWarrant unless all rules are kept and all signatures are good."""
        before, issuer, depth = None, self.swarm, 0
        right = Right.ADMIN
        for grant in self.grants:
            depth += grant.kind is Kind.GRANT
            _check_rules(before, right, grant, depth)
            if not is_signed(_signed_part(self.swarm, issuer, grant), grant.signature, issuer):
                raise BadWarrant(f"a {grant.kind.name.lower()} is not signed by its issuer")
            before, issuer, right = grant, grant.subject, grant.right
        if len(set(self.keys)) < len(self.keys):
            raise BadWarrant("a key grants to itself")

    def encode(self) -> bytes:
        """Its one form."""
        return b"".join(grant.body + grant.signature for grant in self.grants)


@functools.lru_cache(maxsize=4096)
def read_warrant(swarm: bytes, data: bytes) -> Warrant:
    """A warrant of that swarm that keeps all rules; raises BadWarrant. Not its time, nor news."""
    if len(data) > MAX_WARRANT_BYTES or len(data) % GRANT_BYTES:
        raise BadWarrant(f"a warrant of {len(data)} bytes")
    try:
        parts = [data[at : at + GRANT_BYTES] for at in range(0, len(data), GRANT_BYTES)]
        warrant = Warrant(swarm, tuple(map(Grant.parse, parts)))
    except ValueError as error:
        raise BadWarrant(f"not a grant: {error}") from error
    warrant.check()
    return warrant


def _check_rules(before: Grant | None, right: Right, grant: Grant, depth: int) -> None:
    kind = None if before is None else before.kind
    if grant.right > right:
        raise BadWarrant(f"grants {grant.right.name.lower()}, which its issuer may not do")
    if kind is Kind.SEAT:
        raise BadWarrant("a seat is passed on")
    if grant.kind is Kind.GRANT and right is not Right.ADMIN:
        raise BadWarrant("granted by one who is no admin")
    if grant.kind is Kind.CLAIM and kind is not Kind.GRANT:
        raise BadWarrant("a claim of what is no invite")
    if depth > MAX_DEPTH:
        raise BadWarrant(f"more than {MAX_DEPTH} grants, one below the other")


def _signed_part(swarm: bytes, issuer: bytes, grant: Grant) -> bytes:
    return _DOMAIN + swarm + issuer + grant.body


def _tighter(a: int, b: int) -> int:
    return min(a, b) if a and b else a or b
