"""Whom a node knows: Kademlia's routing table, in which networks share each bucket. Pure.

As in the paper (Maymounkov and Mazieres, 2002; b = 5, k = 20), with one rule added against who has
many keys in few networks (Heilman et al., "Eclipse attacks", 2015; Marcus et al., "Low-resource
eclipse attacks on Ethereum", 2018): a newcomer to a full bucket takes the place of one of the
network that has most of it, where that makes it more even. A swarm in one network has no such.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

from p2pnode.dht.backend import DHTID, PeerID

BUCKET_SIZE = 20
BITS = 5
"""Buckets of one level are as wide as a digit of so many bits."""
ID_BITS = 8 * DHTID.HASH_NBYTES

T = TypeVar("T")

Place = tuple[PeerID, str | None]
"""A node's peer id and address group; None is no group."""


def spread(ranked: Iterable[tuple[T, str | None]], limit: int) -> list[T]:
    """The first of each group, then the others in order; at most ``limit``."""
    first: list[T] = []
    others: list[T] = []
    seen: set[str] = set()
    for each, group in ranked:
        if group in seen:
            others.append(each)
            continue
        first.append(each)
        if len(first) == limit:
            break
        if group is not None:
            seen.add(group)
    return (first + others)[:limit]


class RoutingTable:
    """Nodes by their place; those in a bucket in order of when they were heard last."""

    def __init__(self, own: DHTID) -> None:
        self._own = own
        self._nodes: dict[DHTID, Place] = {}
        self._buckets: dict[tuple[int, int], dict[DHTID, str | None]] = {}

    @property
    def peers(self) -> tuple[PeerID, ...]:
        """Everybody in it."""
        return tuple(peer for peer, _ in self._nodes.values())

    def __contains__(self, node: DHTID) -> bool:
        return node in self._nodes

    def add(self, node: DHTID, peer: PeerID, group: str | None) -> None:
        """Enter a node that was heard, where there is room for it."""
        if node == self._own:
            return
        bucket = self._buckets.setdefault(self._bucket_of(node), {})
        bucket.pop(node, None)
        if len(bucket) >= BUCKET_SIZE:
            crowded = _one_of_the_largest(bucket, group)
            if crowded is None:
                return
            self.remove(crowded)
        bucket[node] = group
        self._nodes.pop(node, None)  # those heard last are at the end
        self._nodes[node] = peer, group

    def take_turns(self) -> PeerID | None:
        """Who was heard, or had its turn, longest ago; None when nobody is there."""
        node = next(iter(self._nodes), None)
        if node is None:
            return None
        place = self._nodes[node] = self._nodes.pop(node)
        return place[0]

    def remove(self, node: DHTID) -> None:
        """Forget a node that did not answer."""
        if self._nodes.pop(node, None) is not None:
            del self._buckets[self._bucket_of(node)][node]

    def nearest(self, key: DHTID, limit: int) -> list[tuple[DHTID, PeerID]]:
        """The nearest ones, nearest first."""
        return [(node, self._nodes[node][0]) for node in self._ranked(key)[:limit]]

    def spread(self, key: DHTID, *, asker: DHTID) -> list[PeerID]:
        """Whom to name to somebody who asks for nodes near a key: of each network the nearest.

        Naming the nearest only would name only those who have chosen their place beside the key.
        """
        ranked = (self._nodes[node] for node in self._ranked(key) if node != asker)
        return spread(ranked, BUCKET_SIZE)

    def _ranked(self, key: DHTID) -> list[DHTID]:
        return sorted(self._nodes, key=int(key).__xor__)

    def _bucket_of(self, node: DHTID) -> tuple[int, int]:
        num_shared = ID_BITS - (int(node) ^ int(self._own)).bit_length()
        num_bits = min(ID_BITS, (num_shared // BITS + 1) * BITS)
        return num_bits, int(node) >> (ID_BITS - num_bits)


def _one_of_the_largest(bucket: dict[DHTID, str | None], newcomer: str | None) -> DHTID | None:
    """Who gives way to a newcomer: the one heard longest ago of the largest group, or nobody."""
    sizes = Counter(bucket.values())
    del sizes[None]
    if not sizes:
        return None
    largest, size = sizes.most_common(1)[0]
    if size <= sizes[newcomer] + 1:
        return None
    return next(node for node, group in bucket.items() if group == largest)
