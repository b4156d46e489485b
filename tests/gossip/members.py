"""Participants of gossip without a network, and what they say to each other."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable

from p2pnode.gossip.core import Core
from p2pnode.gossip.digest import Digest, seal_digest
from p2pnode.gossip.messages import Sync
from p2pnode.net.identity import Identity
from p2pnode.net.memory import fake_identity
from p2pnode.types import Health

US, ALICE, BOB, CAROL, MALLORY = (fake_identity(number) for number in range(5))
NOW, WALL = 1000.0, 1.8e9


def core(who: Identity = US, *, is_client: bool = False) -> Core:
    made = Core(who.peer, None if is_client else who.sign, random.Random(1), max_neighbours=24)
    made.announce({each.peer: ("/memory/1",) for each in (US, ALICE, BOB, CAROL, MALLORY)})
    return made


def digest(who: Identity, sequence: int = 1, **changes: object) -> Digest:
    health = Health(peer=who.peer, sequence=sequence, issued_at=WALL)
    return seal_digest(dataclasses.replace(health, **changes), who.sign)  # type: ignore[arg-type]


def sync(digests: Iterable[Digest] = (), suspicions: Iterable[bytes] = ()) -> Sync:
    return Sync(
        turn=3,
        is_whole=False,
        held=b"",
        place=b"",
        digests=tuple(each.data for each in digests),
        suspicions=tuple(suspicions),
    )


def give(to: Core, *digests: Digest, sender: Identity = BOB, now: float = NOW) -> None:
    to.receive(sender.peer, sync(digests), now, WALL + now - NOW)


def exchange(a: Core, b: Core, now: float = NOW) -> int:
    """A whole one; how many messages it took."""
    message, sender, receiver, count = a.opening(), a, b, 0
    answer: Sync | None = message
    while answer is not None:
        count += 1
        answer = receiver.receive(sender.peer, answer, now, WALL + now - NOW)
        sender, receiver = receiver, sender
    return count


def told(who: Identity) -> Core:
    """A participant that has told its health."""
    made = core(who)
    assert made.tell(Health(peer=who.peer, sequence=0, issued_at=0.0), NOW, WALL) is not None
    return made
