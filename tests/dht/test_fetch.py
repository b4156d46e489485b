"""Fetching what is listed: once where all are honest, and from all where somebody hides."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from p2pnode.dht.backend import PeerID
from p2pnode.dht.fetch import MAX_CALLS_PER_PEER, MAX_IDS, WAVE_WITHIN_S, Fetch
from p2pnode.dht.ids import to_hivemind
from p2pnode.net.memory import fake_peer_id
from p2pnode.types import Announcement
from tests.support.announcements import announcement, key_pair

pytestmark = pytest.mark.virtual_time

PEERS = [to_hivemind(fake_peer_id(number)) for number in range(12)]
RECORDS = {b"%08d" % number: announcement(key_pair(number)) for number in range(8)}
SILENCE_S = 3.0


class FakeHolders:
    """Some give what they list, others nothing."""

    def __init__(self, *, liars: Sequence[PeerID] = (), silent: Sequence[PeerID] = ()) -> None:
        self.liars = liars
        self.silent = silent
        self.calls: list[tuple[PeerID, tuple[bytes, ...]]] = []
        self.seen: dict[bytes, Announcement] = {}

    async def take(self, peer: PeerID, ids: Sequence[bytes]) -> list[Announcement]:
        self.calls.append((peer, tuple(ids)))
        if peer in self.silent:
            await asyncio.sleep(SILENCE_S)
        if peer in self.liars or peer in self.silent:
            return []
        given = {each: RECORDS[each] for each in ids if each in RECORDS}
        self.seen |= given
        return list(given.values())

    async def read(self, listed: Mapping[bytes, Sequence[PeerID]]) -> list[Announcement]:
        fetch = Fetch(self.seen.get, self.take)
        await fetch.run(listed)
        return fetch.found


async def test_each_record_is_fetched_once() -> None:
    holders = FakeHolders()
    found = await holders.read(dict.fromkeys(RECORDS, PEERS))
    assert set(found) == set(RECORDS.values())
    assert holders.calls == [(PEERS[0], tuple(RECORDS))]


async def test_what_is_known_is_not_fetched_again() -> None:
    holders = FakeHolders()
    first, *rest = RECORDS
    holders.seen[first] = RECORDS[first]
    found = await holders.read(dict.fromkeys(RECORDS, PEERS))
    assert set(found) == set(RECORDS.values())
    assert holders.calls == [(PEERS[0], tuple(rest))]


@pytest.mark.parametrize("num_liars", [1, 3, 11])
async def test_one_honest_holder_is_enough(num_liars: int) -> None:
    holders = FakeHolders(liars=PEERS[:num_liars])
    found = await holders.read(dict.fromkeys(RECORDS, PEERS))
    assert set(found) == set(RECORDS.values())
    assert len(holders.calls) <= len(PEERS), "nobody is asked twice"


async def test_what_nobody_has_ends_the_reading_all_the_same() -> None:
    holders = FakeHolders()
    assert await holders.read({b"x" * 8: PEERS}) == []
    assert len(holders.calls) == len(PEERS)


async def test_others_are_asked_before_who_is_silent_is_given_up() -> None:
    holders = FakeHolders(silent=PEERS[:1])
    fetch = Fetch(holders.seen.get, holders.take)
    reading = asyncio.create_task(fetch.run(dict.fromkeys(RECORDS, PEERS)))
    await asyncio.sleep(WAVE_WITHIN_S + 0.1)
    assert not reading.done()
    assert set(fetch.found) == set(RECORDS.values())
    await reading
    assert len(holders.calls) == 3, "two more, once"


async def test_who_lists_very_much_is_not_asked_for_all_of_it() -> None:
    holders = FakeHolders(liars=PEERS[:1])
    junk = {b"j%07d" % number: PEERS[:1] for number in range(20 * MAX_IDS)}
    found = await holders.read(junk | dict.fromkeys(RECORDS, PEERS[:2]))
    assert set(found) == set(RECORDS.values())
    to_liar = [ids for peer, ids in holders.calls if peer == PEERS[0]]
    assert len(to_liar) == MAX_CALLS_PER_PEER
    assert max(map(len, to_liar)) <= MAX_IDS
