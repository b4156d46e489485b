"""The directory's search: nearest first, and no network fills it alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from p2pnode.dht.backend import DHTID, PeerID
from p2pnode.dht.groups import OTHER, group_of
from p2pnode.dht.search import WIDTH, Found, Search
from p2pnode.dht.shards import node_id_of, to_hivemind
from p2pnode.net.memory import fake_peer_id

pytestmark = pytest.mark.virtual_time

KEY = DHTID.generate(source=b"key")
NODES = {node_id_of(peer): peer for peer in (to_hivemind(fake_peer_id(n)) for n in range(60))}
RANKED = sorted(NODES, key=lambda node: int(node) ^ int(KEY))


class World:
    """Nodes that know everybody; those of one crowd only each other."""

    def __init__(self, groups: Mapping[PeerID, str | None], crowd: Collection[PeerID] = ()) -> None:
        self.groups = groups
        self.asked: list[PeerID] = []
        self._crowd = crowd

    async def ask(self, peer: PeerID, keys: Collection[DHTID]) -> dict[DHTID, Found]:
        self.asked.append(peer)
        known = [n for n in RANKED if peer not in self._crowd or NODES[n] in self._crowd][:20]
        return {key: (None, {node: NODES[node] for node in known}) for key in keys}

    async def groups_now(self) -> Mapping[PeerID, str | None]:
        return {peer: self.groups[peer] for peer in self.asked}

    async def nearest(self, start: DHTID) -> list[PeerID]:
        search = Search([KEY], self.ask, self.groups_now, max_keys=4)
        await search.run({KEY: {start: NODES[start]}}, own=DHTID.generate(source=b"own"))
        return search.of[KEY].nearest()


def ranked(nodes: Collection[DHTID]) -> list[PeerID]:
    return [NODES[node] for node in nodes]


async def test_the_nearest_are_found_without_asking_everybody() -> None:
    world = World({peer: f"net-{number}" for number, peer in enumerate(NODES.values())})
    assert await world.nearest(RANKED[-1]) == ranked(RANKED[:WIDTH])
    assert len(world.asked) < 20


async def test_a_crowd_around_the_key_counts_once() -> None:
    crowd = set(ranked(RANKED[:10]))
    groups = {peer: "crowd" if peer in crowd else f"net-{peer}" for peer in NODES.values()}
    found = await World(groups, crowd).nearest(RANKED[-1])
    assert found == [*ranked(RANKED[:1]), *ranked(RANKED[10 : 10 + WIDTH - 1])]


@pytest.mark.parametrize("group", [None, "one"])
async def test_a_swarm_in_one_network_or_at_home_is_searched_as_well(group: str | None) -> None:
    world = World(dict.fromkeys(NODES.values(), group))
    assert await world.nearest(RANKED[-1]) == ranked(RANKED[:WIDTH])


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
