"""The directory's search: nearest first, and no network fills it alone."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping

import pytest

from p2pnode.dht.backend import DHTID, PeerID
from p2pnode.dht.groups import OTHER, UNKNOWN, Groups, group_of
from p2pnode.dht.ids import node_id_of, to_hivemind
from p2pnode.dht.search import WIDTH, Found, Search
from p2pnode.net.memory import fake_peer_id

pytestmark = pytest.mark.virtual_time

KEY = DHTID.generate(source=b"key")
NODES = {node_id_of(peer): peer for peer in (to_hivemind(fake_peer_id(n)) for n in range(60))}
RANKED = sorted(NODES, key=lambda node: int(node) ^ int(KEY))
SILENCE_S = 3.0


def network(number: int) -> str:
    """An address in a network of its own."""
    return f"/ip4/60.{number}.0.1/tcp/4001"


class World:
    """Nodes that know everybody; those of one crowd only each other."""

    def __init__(
        self,
        addresses: Mapping[PeerID, str],
        crowd: Collection[PeerID] = (),
        silent: Collection[PeerID] = (),
    ) -> None:
        self.addresses = addresses
        self.silent = silent
        self.asked: list[PeerID] = []
        self.groups = Groups(self.connected)
        self._crowd = crowd

    async def ask(self, peer: PeerID, keys: Collection[DHTID]) -> dict[DHTID, Found]:
        """Everybody lists one record, named like itself."""
        self.asked.append(peer)
        if peer in self.silent:
            await asyncio.sleep(SILENCE_S)
        known = [n for n in RANKED if peer not in self._crowd or NODES[n] in self._crowd][:20]
        return {key: ([record_of(peer)], {node: NODES[node] for node in known}) for key in keys}

    async def connected(self) -> Mapping[PeerID, str]:
        return {peer: self.addresses[peer] for peer in self.asked}

    async def search(self, *start: DHTID) -> Search:
        own = DHTID.generate(source=b"own")
        search = Search([KEY], self.ask, self.groups, own=own, max_keys=4)
        await search.run({KEY: {node: NODES[node] for node in start}})
        return search

    async def nearest(self, *start: DHTID) -> list[PeerID]:
        return (await self.search(*start)).of[KEY].nearest()


def record_of(peer: PeerID) -> bytes:
    return bytes(node_id_of(peer).to_bytes()[:8])


def everywhere(crowd: Iterable[PeerID] = ()) -> dict[PeerID, str]:
    """Each in a network of its own, but the crowd in one."""
    at = {peer: network(number) for number, peer in enumerate(NODES.values(), 1)}
    return at | dict.fromkeys(crowd, network(0))


def ranked(nodes: Collection[DHTID]) -> list[PeerID]:
    return [NODES[node] for node in nodes]


async def test_the_nearest_are_found_without_asking_everybody() -> None:
    world = World(everywhere())
    assert await world.nearest(RANKED[-1]) == ranked(RANKED[:WIDTH])
    assert len(world.asked) < 20


async def test_a_crowd_around_the_key_counts_once() -> None:
    crowd = set(ranked(RANKED[:10]))
    found = await World(everywhere(crowd), crowd).nearest(RANKED[-1])
    assert found == [*ranked(RANKED[:1]), *ranked(RANKED[10 : 10 + WIDTH - 1])]


async def test_a_crowd_does_not_replace_the_few_others_that_there_are() -> None:
    crowd, others = set(ranked(RANKED[:40])), RANKED[40:43]
    found = await World(everywhere(crowd), crowd).nearest(RANKED[0], *others)
    assert set(ranked(others)) <= set(found)


async def test_records_are_asked_for_at_those_that_count() -> None:
    crowd = set(ranked(RANKED[:10]))
    search = await World(everywhere(crowd), crowd).search(RANKED[-1])
    holders = search.holders()
    assert set(holders) == {record_of(peer) for peer, _ in search.of[KEY].counted.values()}
    assert sum(peers[0] in crowd for peers in holders.values()) == 1


@pytest.mark.parametrize("address", ["/ip4/10.0.0.1/tcp/1", network(1)])
async def test_a_swarm_in_one_network_or_at_home_is_searched_as_well(address: str) -> None:
    world = World(dict.fromkeys(NODES.values(), address))
    assert await world.nearest(RANKED[-1]) == ranked(RANKED[:WIDTH])


async def test_the_group_of_who_has_gone_is_unknown_and_nobody_is_looked_up_twice() -> None:
    looks: list[int] = []
    here, gone = list(NODES.values())[:2]

    async def connected() -> Mapping[PeerID, str]:
        looks.append(1)
        return {here: network(1)}

    groups = Groups(connected)
    assert [await groups.of(here) for _ in range(3)] == ["60.1.0.0/16"] * 3
    assert len(looks) == 1
    assert await groups.of(gone) == UNKNOWN


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("/ip4/85.214.3.4/tcp/4001", "85.214.0.0/16"),
        ("/ip4/85.214.3.4/tcp/4001/p2p/Qm/p2p-circuit", "85.214.0.0/16"),
        ("/ip6/2a01:4f8:1::1/tcp/4001", "2a01:4f8::/32"),
        ("/ip4/10.1.2.3/tcp/4001", None),
        ("/ip4/127.0.0.1/tcp/4001", None),
        ("/dns4/example.org/tcp/1", OTHER),
        ("/ip4/300.1.2.3/tcp/1", OTHER),
        ("", OTHER),
    ],
)
def test_groups_are_networks(address: str, group: str | None) -> None:
    assert group_of(address) == group


async def test_many_who_are_silent_are_waited_for_together() -> None:
    world = World(everywhere(), silent=ranked(RANKED[:30]))
    began = asyncio.get_running_loop().time()
    search = await world.search(RANKED[-1])
    assert asyncio.get_running_loop().time() - began < 2 * SILENCE_S
    assert len(search.of[KEY].counted) >= WIDTH


async def test_a_search_that_is_stopped_has_those_who_have_answered() -> None:
    silent = ranked(RANKED[1:6])
    world = World(everywhere(), silent=silent)
    own = DHTID.generate(source=b"own")
    search = Search([KEY], world.ask, world.groups, own=own, max_keys=4)
    searching = asyncio.create_task(search.run({KEY: {RANKED[-1]: NODES[RANKED[-1]]}}))
    await asyncio.sleep(1.0)
    assert not searching.done()
    search.stop()
    found, num_asked = search.of[KEY].nearest(), len(world.asked)
    assert found[:1] == ranked(RANKED[:1])
    assert not set(found) & set(silent)
    await searching
    assert search.of[KEY].nearest() == found, "late answers change nothing"
    assert len(world.asked) == num_asked, "nobody more is asked"
