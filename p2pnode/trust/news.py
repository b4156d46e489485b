"""News of a private swarm: which invites are used, and by whom; and who is in it no more.

An item is bytes that prove themselves, so anyone may pass it on: a **claim** is the warrant that
ends in it, a **revocation** the key that is revoked, signed by an admin whose warrant is beside it.

A revocation concerns those warrants in which its issuer comes before the revoked key. So what it
means depends on nothing else that a node has heard, and an admin revokes only what comes from it.
Of two claims of one invite the one that is heard first counts here, see the package's docstring.

All is bounded: items for each issuer and in all, and an item is forgotten when the key that it is
about has expired. What one admin's branch of the swarm may fill is bounded, too, so that the
founder can always revoke that admin, and then it is forgotten.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from p2pnode.errors import BadWarrant
from p2pnode.trust.grants import MAX_WARRANT_BYTES, Kind, Sign, Warrant, read_warrant
from p2pnode.trust.signatures import SIGNATURE_BYTES, is_signed

MAX_PER_BRANCH = 256
"""Items whose warrants begin with the same grant of the founder; so many are the founder's own."""
MAX_ITEMS = 2048
DIGEST_BYTES = 8
LOG_ID_BYTES = 8

_DOMAIN = b"p2pnode/revocation/1\0"
_CLAIM, _REVOCATION = b"c", b"r"
_BODY = struct.Struct(">32sQI")
MAX_ITEM_BYTES = 1 + _BODY.size + SIGNATURE_BYTES + MAX_WARRANT_BYTES


@dataclass(frozen=True, slots=True)
class Claim:
    """An invite's one-time key, and the key of the home that has used it."""

    warrant: Warrant

    @property
    def invite(self) -> bytes:
        """The key of the invite."""
        return self.warrant.keys[-2]

    @property
    def until(self) -> int:
        """When it may be forgotten."""
        return self.warrant.expires_at

    @property
    def item(self) -> bytes:
        """Its bytes."""
        return _CLAIM + self.warrant.encode()


@dataclass(frozen=True, slots=True)
class Revocation:
    """A key that is in the swarm no more, wherever it was let in by this issuer."""

    warrant: Warrant
    """Of the issuer."""
    target: bytes
    until: int
    """When all that the target could show has expired."""
    sequence: int
    """The issuer's first revocation is 1."""
    signature: bytes = b""

    @property
    def body(self) -> bytes:
        """What is signed, besides domain and swarm."""
        return _BODY.pack(self.target, self.until, self.sequence)

    @property
    def item(self) -> bytes:
        """Its bytes."""
        return _REVOCATION + self.body + self.signature + self.warrant.encode()


def revoke(warrant: Warrant, target: bytes, until: int, sequence: int, sign: Sign) -> Revocation:
    """Sign a revocation with the key that the warrant is for."""
    unsigned = Revocation(warrant, target, until, sequence)
    return Revocation(
        warrant, target, until, sequence, sign(_DOMAIN + warrant.swarm + unsigned.body)
    )


def read_item(swarm: bytes, item: bytes) -> Claim | Revocation:
    """An item that proves itself; raises BadWarrant."""
    if len(item) > MAX_ITEM_BYTES:
        raise BadWarrant(f"news of {len(item)} bytes, at most {MAX_ITEM_BYTES}")
    kind, rest = item[:1], item[1:]
    if kind == _CLAIM:
        warrant = read_warrant(swarm, rest)
        if not warrant.grants or warrant.grants[-1].kind is not Kind.CLAIM:
            raise BadWarrant("a claim that does not end in one")
        return Claim(warrant)
    head = _BODY.size + SIGNATURE_BYTES
    if kind != _REVOCATION or len(rest) < head:
        raise BadWarrant("news of an unknown kind")
    target, until, sequence = _BODY.unpack_from(rest)
    warrant = read_warrant(swarm, rest[head:])
    found = Revocation(warrant, target, until, sequence, rest[_BODY.size : head])
    if warrant.right is not warrant.right.ADMIN or warrant.holder != warrant.subject:
        raise BadWarrant("revoked by one who is no admin")
    if not is_signed(_DOMAIN + swarm + found.body, found.signature, warrant.subject):
        raise BadWarrant("a revocation is not signed by its issuer")
    return found


class News:
    """What one participant has heard of a swarm."""

    def __init__(self, swarm: bytes) -> None:
        self.swarm = swarm
        self._claims: dict[bytes, Claim] = {}
        self._revoked: dict[tuple[bytes, bytes], Revocation] = {}
        self._log: list[bytes] = []
        self.log_id = os.urandom(LOG_ID_BYTES)
        """Of what `since` reads; another one when items were forgotten."""
        self.digest = _digest(())
        """The same where the same has been heard."""

    # --- what follows from it

    def is_revoked(self, warrant: Warrant) -> bool:
        """Whether one of its keys is revoked by one before it."""
        keys = warrant.keys
        return any(
            (issuer, key) in self._revoked for at, key in enumerate(keys) for issuer in keys[:at]
        )

    def is_used(self, warrant: Warrant) -> bool:
        """Whether one of the invites in it is another key's."""
        pairs = zip(warrant.keys, warrant.grants, strict=False)
        claims = [(key, grant.subject) for key, grant in pairs if grant.kind is Kind.CLAIM]
        return any(
            key in self._claims and self._claims[key].warrant.subject != subject
            for key, subject in claims
        )

    # --- hearing and telling

    def add(self, item: bytes, now: float) -> bool:
        """Take an item in; whether it was news. Raises BadWarrant, also when there is no room."""
        found = read_item(self.swarm, item)
        if found.until <= now or self.is_revoked(found.warrant):
            return False
        if isinstance(found, Claim):
            known = self._claims.get(found.invite)
            if known is not None:
                return False
            self._check_room(found)
            self._claims[found.invite] = found
        else:
            key = (found.warrant.subject, found.target)
            if key in self._revoked:
                return False
            self._check_room(found)
            self._revoked[key] = found
            self._forget_moot()
        self._log.append(found.item)
        self.digest = _digest(self._log)
        return True

    def claim(self, warrant: Warrant, now: float) -> bool:
        """Note the claims in a warrant that was shown to us; whether one was news."""
        parts = [
            Warrant(warrant.swarm, warrant.grants[: at + 1])
            for at, grant in enumerate(warrant.grants)
            if grant.kind is Kind.CLAIM
        ]
        return sum(self.add(Claim(part).item, now) for part in parts) > 0

    def since(self, at: int) -> tuple[bytes, ...]:
        """The items behind the first ``at`` ones, in the order in which we heard them."""
        return tuple(self._log[at:])

    def __len__(self) -> int:
        return len(self._log)

    @property
    def claims(self) -> tuple[Claim, ...]:
        """All that count here."""
        return tuple(self._claims.values())

    @property
    def revocations(self) -> tuple[Revocation, ...]:
        """All."""
        return tuple(self._revoked.values())

    def next_sequence(self, issuer: bytes) -> int:
        """Of this issuer's next revocation."""
        numbers = [each.sequence for (key, _), each in self._revoked.items() if key == issuer]
        return max(numbers, default=0) + 1

    def forget_expired(self, now: float) -> None:
        """Drop what concerns nobody any more."""
        self._keep(each for each in self._all() if each.until > now)

    # --- helpers

    def _all(self) -> list[Claim | Revocation]:
        return [*self._claims.values(), *self._revoked.values()]

    def _forget_moot(self) -> None:
        """What somebody says who is revoked, or was in by an invite that is, concerns nobody."""
        self._keep(each for each in self._all() if not self.is_revoked(each.warrant))

    def _keep(self, kept: Iterable[Claim | Revocation]) -> None:
        items = {each.item for each in kept}
        if len(items) == len(self._claims) + len(self._revoked):
            return
        self._claims = {key: each for key, each in self._claims.items() if each.item in items}
        self._revoked = {key: each for key, each in self._revoked.items() if each.item in items}
        self._log = [item for item in self._log if item in items]
        self.log_id = os.urandom(LOG_ID_BYTES)
        self.digest = _digest(self._log)

    def _check_room(self, new: Claim | Revocation) -> None:
        branches = Counter(_branch(each) for each in self._all())
        if branches[_branch(new)] >= MAX_PER_BRANCH:
            raise BadWarrant(f"no room: {MAX_PER_BRANCH} claims or revocations of one admin's")
        if _branch(new) != self.swarm and branches.total() >= MAX_ITEMS:
            raise BadWarrant(f"no room: {MAX_ITEMS} claims and revocations in all")


def _digest(items: Iterable[bytes]) -> bytes:
    joined = b"".join(sorted(hashlib.blake2b(item).digest() for item in items))
    return hashlib.blake2b(joined, digest_size=DIGEST_BYTES).digest()


def _branch(item: Claim | Revocation) -> bytes:
    """Whom the founder would have to revoke to be rid of such items; the swarm: nobody.

    Claims of the founder's own invites count as one branch each: they are one at most.
    """
    if isinstance(item, Revocation) and not item.warrant.grants:
        return item.warrant.swarm
    return item.warrant.keys[1]
