"""What is kept of ended sessions: for whom, how much, and what gives way."""

from __future__ import annotations

from typing import Any

import pytest

from p2pnode.net.memory import fake_peer_id
from p2pnode.serving.journal import Journal
from p2pnode.serving.prefixes import KEPT_FOR_S, MAX_KEPT, Prefixes
from p2pnode.types import LayerRange, PeerId, Tensor
from p2pnode.wire.pages import PAGE_TOKENS, names_of

KEY = b"k" * 32
LINE = list(range(6 * PAGE_TOKENS))
LAYERS = LayerRange(0, 3)
COST = 100


class Link:
    def __init__(self, peer: PeerId) -> None:
        self.peer = peer


class Ended:
    """As much of a session as is looked at."""

    def __init__(self, num_tokens: int, client: int = 0, layers: LayerRange = LAYERS) -> None:
        self.client = Link(fake_peer_id(client))
        self.layers = layers
        self.position = num_tokens
        self.cache = object()
        self.journal = Journal()
        self.journal.put(0, Tensor("float32", (num_tokens, 1), memoryview(bytes(4 * num_tokens))))


def names(num_pages: int) -> bytes:
    return names_of(KEY, LINE[: num_pages * PAGE_TOKENS])


def kept(*ended: tuple[Any, bytes]) -> Prefixes:
    prefixes = Prefixes()
    for at, (session, pages) in enumerate(ended):
        prefixes.keep(session, pages, num_bytes=COST, now=float(at))
    return prefixes


def found(prefixes: Prefixes, num_pages: int, client: int = 0, layers: LayerRange = LAYERS) -> int:
    result = prefixes.find(fake_peer_id(client), layers, names(num_pages), now=0.0)
    return result[1] if result else 0


def test_whole_pages_that_are_named_and_computed_are_found() -> None:
    prefixes = kept((Ended(3 * PAGE_TOKENS + 40), names(5)))
    assert found(prefixes, 2) == 2 * PAGE_TOKENS
    assert found(prefixes, 6) == 3 * PAGE_TOKENS


def test_the_rows_of_what_was_not_named_are_forgotten() -> None:
    prefixes = kept((Ended(3 * PAGE_TOKENS), names(1)))
    result = prefixes.find(fake_peer_id(0), LAYERS, names(3), now=0.0)
    assert result is not None
    assert result[0].journal.end == PAGE_TOKENS


@pytest.mark.parametrize(("client", "layers"), [(1, LAYERS), (0, LayerRange(0, 2))])
def test_other_clients_and_other_layers_find_nothing(client: int, layers: LayerRange) -> None:
    assert found(kept((Ended(2 * PAGE_TOKENS), names(2))), 2, client, layers) == 0


def test_nothing_is_kept_of_what_was_not_named() -> None:
    assert kept((Ended(2 * PAGE_TOKENS), b"")).num_bytes == 0


def test_a_longer_one_takes_the_place_of_its_own_beginning() -> None:
    prefixes = kept((Ended(2 * PAGE_TOKENS), names(2)), (Ended(4 * PAGE_TOKENS), names(4)))
    assert prefixes.num_bytes == COST
    assert found(prefixes, 6) == 4 * PAGE_TOKENS


def test_the_longest_unused_gives_way() -> None:
    other = names_of(b"K" * 32, LINE[:PAGE_TOKENS])
    prefixes = kept((Ended(PAGE_TOKENS), names(1)), (Ended(PAGE_TOKENS), other))
    assert prefixes.find(fake_peer_id(0), LAYERS, names(1), now=9.0) is not None
    prefixes.shrink(COST)
    assert prefixes.find(fake_peer_id(0), LAYERS, other, now=9.0) is None
    assert found(prefixes, 1) == PAGE_TOKENS


def test_what_nobody_wants_is_forgotten_in_time() -> None:
    prefixes = kept((Ended(PAGE_TOKENS), names(1)))
    prefixes.expire(KEPT_FOR_S)
    assert found(prefixes, 1) == PAGE_TOKENS
    prefixes.expire(2 * KEPT_FOR_S + 1.0)
    assert found(prefixes, 1) == 0


def test_how_many_are_kept_is_bounded() -> None:
    many = [names_of(b"%032d" % number, LINE[:PAGE_TOKENS]) for number in range(MAX_KEPT + 9)]
    prefixes = kept(*((Ended(PAGE_TOKENS), each) for each in many))
    assert prefixes.num_bytes == MAX_KEPT * COST
