"""What a node receives: never much more than its share, whoever turns to it, and how often."""

from __future__ import annotations

import random

import pytest

from p2pnode.gossip.appetite import (
    BURST_BYTES,
    LEAST_ASKED,
    MOST_OVERDRAWN_BYTES,
    RECEIVED_PER_S,
    Appetite,
)
from p2pnode.gossip.core import Core
from p2pnode.gossip.digest import seal_digest
from p2pnode.gossip.messages import ENTRY_BYTES, MAX_DIGESTS, MAX_DIGESTS_BYTES, Sync, sync_of
from p2pnode.lab import scale
from p2pnode.net.identity import Identity
from p2pnode.net.memory import fake_identity
from p2pnode.types import Health
from p2pnode.wire.codec import encode
from p2pnode.wire.frames import PREFIX

MOST_PER_S = 8_000
WALL = 1.8e9


def core_of(who: Identity) -> Core:
    return Core(who.peer, who.sign, random.Random(1), max_neighbours=24)


def filled(who: Identity, count: int) -> Core:
    """One who knows many."""
    core = core_of(who)
    for number in range(count):
        author = fake_identity(100 + number)
        health = Health(peer=author.peer, sequence=1, issued_at=WALL)
        core.known.put(seal_digest(health, author.sign), 0.0)
    return core


def num_asked(core: Core, answer: Sync | None) -> int:
    """How many entries of an answer name what its sender lacks."""
    held = answer.held if answer else b""
    unknown = b"\0" * 6
    return sum(held[at + 8 : at + ENTRY_BYTES] == unknown for at in range(0, len(held), 14))


def test_no_node_receives_more_than_its_share_in_any_window() -> None:
    figures = scale.gossip(160, seconds=10)
    assert figures["gossip_window_p50"] <= figures["gossip_window_p95"]
    assert figures["gossip_window_p95"] <= figures["gossip_window_most"] <= MOST_PER_S
    assert figures["gossip_joining_most"] <= MOST_PER_S
    assert figures["gossip_known"] > 0.97


def test_who_has_received_a_lot_asks_for_little_and_later_for_more() -> None:
    us, partner = core_of(fake_identity(0)), filled(fake_identity(1), 200)
    opening = partner.opening()
    first = us.receive(partner.peer, opening, 0.0, WALL)
    assert num_asked(us, first) > 3 * LEAST_ASKED
    for _ in range(12):
        last = us.receive(partner.peer, opening, 0.1, WALL)
    assert num_asked(us, last) == LEAST_ASKED
    rested = us.receive(partner.peer, opening, 10.0, WALL)
    assert num_asked(us, rested) == num_asked(us, first)


def test_who_has_received_a_lot_does_not_ask_for_all() -> None:
    us, partner = core_of(fake_identity(0)), filled(fake_identity(1), 200)
    assert us.opening().is_whole
    for _ in range(3):
        us.receive(partner.peer, partner.opening(), 0.0, WALL)
    assert not us.opening().is_whole
    us.tick(10.0, WALL)
    assert us.opening().is_whole


def test_an_appetite_comes_back_with_time_and_is_never_gone() -> None:
    appetite = Appetite()
    assert appetite.takes_all
    appetite.received(10 * int(BURST_BYTES), 0.0)
    assert not appetite.takes_all
    assert appetite.num_digests == LEAST_ASKED
    appetite.pass_time((MOST_OVERDRAWN_BYTES + MAX_DIGESTS_BYTES + 1) / RECEIVED_PER_S)
    assert appetite.takes_all
    appetite.pass_time(1e6)
    assert LEAST_ASKED < appetite.num_digests <= MAX_DIGESTS


@pytest.mark.parametrize("num_digests", [0, 1, 30])
@pytest.mark.parametrize("num_entries", [0, 80])
def test_the_size_that_is_counted_is_about_that_on_the_wire(
    num_digests: int, num_entries: int
) -> None:
    message = sync_of(
        1,
        held=b"e" * ENTRY_BYTES * num_entries,
        place=b"\0" * 10,
        digests=(b"d" * 150,) * num_digests,
    )
    header, _ = encode(message)
    assert message.num_bytes == pytest.approx(len(header) + PREFIX.size, abs=20, rel=0.03)
