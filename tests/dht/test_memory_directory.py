"""The directory in memory: the rules of the real one, without a network."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from libp2p.crypto.keys import KeyPair

from p2pnode.dht.directory import Directory
from p2pnode.dht.memory import CUT_OFF_AFTER_S, MemoryDht, MemoryDirectory
from p2pnode.dht.records import (
    ALL_KEYS,
    key_of,
    seal_announcement,
    shard_of,
    subkey_of,
)
from p2pnode.errors import BadRecord, JoinFailed
from tests.support.announcements import NOW, announcement, key_pair

ALICE, BOB = key_pair(1), key_pair(2)


def directories(dht: MemoryDht, *keys: KeyPair) -> list[MemoryDirectory]:
    return [MemoryDirectory(dht, each) for each in keys]


async def test_what_one_publishes_the_other_reads() -> None:
    alice, bob = directories(MemoryDht(clock=lambda: NOW), ALICE, BOB)
    as_directory: Directory = alice
    await as_directory.publish(announcement(ALICE))
    assert await bob.announcements() == (announcement(ALICE),)


async def test_one_reading_shows_every_model_of_the_swarm() -> None:
    dht = MemoryDht(clock=lambda: NOW)
    expected = set()
    for number in range(40):
        keys = key_pair(number)
        what = announcement(keys, fingerprint=f"{number % 2}" * 64)
        await MemoryDirectory(dht, keys).publish(what)
        expected.add(what.peer)
    found = await MemoryDirectory(dht, ALICE).announcements()
    assert {each.peer for each in found} == expected


async def test_a_tombstone_hides_the_peer_at_once() -> None:
    alice, bob = directories(MemoryDht(clock=lambda: NOW), ALICE, BOB)
    await alice.publish(announcement(ALICE))
    await alice.publish(announcement(ALICE, sequence=2, expires_at=NOW + 61, is_withdrawn=True))
    assert await bob.announcements() == ()
    with pytest.raises(BadRecord, match="not newer"):
        await alice.publish(announcement(ALICE))


async def test_announcements_expire() -> None:
    now = NOW
    alice, bob = directories(MemoryDht(clock=lambda: now), ALICE, BOB)
    await alice.publish(announcement(ALICE))
    now = NOW + 59
    assert len(await bob.announcements()) == 1
    now = NOW + 60
    assert await bob.announcements() == ()


async def test_nobody_can_publish_for_another() -> None:
    alice, bob = directories(MemoryDht(clock=lambda: NOW), ALICE, BOB)
    with pytest.raises(BadRecord, match="signed by another"):
        await bob.publish(announcement(ALICE))
    what = announcement(BOB)
    value = seal_announcement(BOB, what)
    with pytest.raises(BadRecord, match="subkey"):
        await bob.put(
            key_of(shard_of(alice.peer)), subkey_of(announcement(ALICE)), value, what.expires_at
        )


async def test_a_replay_of_an_older_record_is_refused_by_the_holder() -> None:
    alice, bob = directories(MemoryDht(clock=lambda: NOW), ALICE, BOB)
    old = announcement(ALICE)
    await alice.publish(old)
    await alice.publish(replace(old, sequence=2, expires_at=NOW + 61))
    value = seal_announcement(ALICE, old)
    with pytest.raises(BadRecord, match="not newer"):
        await bob.put(key_of(shard_of(old.peer)), subkey_of(old), value, old.expires_at)


@pytest.mark.virtual_time
async def test_a_peer_that_is_cut_off_is_told_so_in_bounded_time() -> None:
    dht = MemoryDht(clock=lambda: NOW)
    alice, bob = directories(dht, ALICE, BOB)
    await alice.publish(announcement(ALICE))
    dht.cut_off(bob.peer)
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    with pytest.raises(JoinFailed, match="no peer"):
        await bob.announcements()
    with pytest.raises(JoinFailed, match="no peer"):
        await bob.publish(announcement(BOB))
    assert loop.time() - started_at == pytest.approx(2 * CUT_OFF_AFTER_S)
    dht.reconnect(bob.peer)
    assert len(await bob.announcements()) == 1


async def test_islands_see_each_other_once_they_meet() -> None:
    dht = MemoryDht(clock=lambda: NOW)
    alice, bob = directories(dht, ALICE, BOB)
    dht.partition([bob.peer])
    await alice.publish(announcement(ALICE))
    await bob.publish(announcement(BOB))
    assert [each.peer for each in await alice.announcements()] == [alice.peer]
    assert [each.peer for each in await bob.announcements()] == [bob.peer]
    dht.merge()
    assert {each.peer for each in await bob.announcements()} == {alice.peer, bob.peer}


@pytest.mark.virtual_time
async def test_a_reading_takes_the_latency_of_the_network() -> None:
    dht = MemoryDht(clock=lambda: NOW, latency_s=0.25)
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    await MemoryDirectory(dht, ALICE).announcements()
    assert loop.time() - started_at == pytest.approx(0.25)


async def test_a_thousand_peers_stay_readable() -> None:
    dht = MemoryDht(clock=lambda: NOW)
    for number in range(1000):
        keys = key_pair(number)
        await MemoryDirectory(dht, keys).publish(announcement(keys))
    reader = MemoryDirectory(dht, ALICE)
    assert len(await reader.announcements()) == 1000
    holder = await dht.holder_of(reader.peer)
    sizes = [
        sum(len(held.value) + 100 for held in holder.shard(key, now=NOW).values())
        for key in ALL_KEYS
    ]
    assert max(sizes) < 1 << 20, "with 100 bytes for each subkey and expiry"
    assert 200_000 < sum(sizes), "the records are not smaller than real ones"
