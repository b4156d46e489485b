"""Whom a node knows, and whom it names."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.dht.backend import DHTID
from p2pnode.dht.ids import node_id_of, to_hivemind
from p2pnode.dht.table import BITS, BUCKET_SIZE, ID_BITS, RoutingTable, spread
from p2pnode.net.memory import fake_peer_id

OWN, KEY = DHTID.generate(source=b"own"), DHTID.generate(source=b"key")
PEERS = [to_hivemind(fake_peer_id(number)) for number in range(600)]
NODES = {node_id_of(peer): peer for peer in PEERS}
NEAR = sorted(NODES, key=lambda node: int(node) ^ int(KEY))
BUCKETS = Counter(int(node) >> (ID_BITS - BITS) for node in NODES)
"""Those far from our own place."""
IN_BUCKET = [n for n in NODES if int(n) >> (ID_BITS - BITS) == BUCKETS.most_common(1)[0][0]]


def table_of(*nodes: tuple[DHTID, str | None]) -> RoutingTable:
    table = RoutingTable(OWN)
    for node, group in nodes:
        table.add(node, NODES[node], group)
    return table


def test_the_nearest_come_first() -> None:
    table = table_of(*((node, None) for node in NEAR[30:10:-1]))
    assert [node for node, _ in table.nearest(KEY, 5)] == NEAR[11:16]
    table.remove(NEAR[11])
    table.remove(NEAR[11])
    assert NEAR[11] not in table
    assert len(table.peers) == 19


def test_we_are_not_in_our_own_table() -> None:
    own, peer = next(iter(NODES.items()))
    table = RoutingTable(own)
    table.add(own, peer, None)
    assert table.peers == ()


def test_those_of_one_network_give_way_when_a_bucket_is_full() -> None:
    crowd, newcomer = IN_BUCKET[:BUCKET_SIZE], IN_BUCKET[BUCKET_SIZE]
    table = table_of(*((node, "crowd") for node in crowd))
    table.add(crowd[0], NODES[crowd[0]], "crowd")  # heard again
    table.add(newcomer, NODES[newcomer], "crowd")
    assert newcomer not in table, "no room for another one of them"
    table.add(newcomer, NODES[newcomer], "net")
    assert newcomer in table
    assert crowd[1] not in table, "who was heard longest ago"
    assert len(table.peers) == BUCKET_SIZE


def test_who_is_alone_in_a_network_or_at_home_does_not_give_way() -> None:
    *old, newcomer = IN_BUCKET[: BUCKET_SIZE + 1]
    for groups in ([None] * BUCKET_SIZE, [f"net-{number}" for number in range(BUCKET_SIZE)]):
        table = table_of(*zip(old, groups, strict=True))
        table.add(newcomer, NODES[newcomer], "new")
        assert newcomer not in table


def test_of_a_crowd_beside_the_key_one_is_named() -> None:
    crowd, others = NEAR[:30], NEAR[30:60]
    groups = dict.fromkeys(crowd, "crowd") | {node: f"net-{node}" for node in others}
    table = table_of(*groups.items())
    named = table.spread(KEY, asker=others[0])
    assert len(named) == BUCKET_SIZE
    assert sum(peer in {NODES[node] for node in crowd} for peer in named) == 1
    assert NODES[others[0]] not in named, "the asker knows itself"


def test_a_swarm_in_one_network_is_named_by_distance() -> None:
    table = table_of(*((node, "one") for node in NEAR[:15]))
    assert table.spread(KEY, asker=OWN) == [NODES[node] for node in NEAR[:15]]


def test_nearest_of_each_group_then_the_others() -> None:
    ranked = [(1, "a"), (2, "a"), (3, None), (4, "b"), (5, None), (6, "b")]
    assert spread(ranked, 10) == [1, 3, 4, 5, 2, 6]
    assert spread(ranked, 3) == [1, 3, 4]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(NODES)), st.sampled_from("abc")), max_size=200))
def test_no_bucket_is_ever_too_full(heard: list[tuple[DHTID, str]]) -> None:
    table = table_of(*heard)
    assert len(table.peers) == len({*table.peers})
    assert len(table.peers) <= len({node for node, _ in heard})
    assert sum(node in table for node in IN_BUCKET) <= BUCKET_SIZE


def test_everybody_has_a_turn_and_those_heard_last_come_last() -> None:
    table = table_of(*((node, None) for node in NEAR[:4]))
    assert table.take_turns() == NODES[NEAR[0]]
    table.add(NEAR[1], NODES[NEAR[1]], None)
    assert [table.take_turns() for _ in range(4)] == [NODES[NEAR[n]] for n in (2, 3, 0, 1)]
    assert RoutingTable(OWN).take_turns() is None
