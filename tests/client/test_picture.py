"""The picture of a swarm: what is covered, by whom, and what is known of each peer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnode.client.peers import Observed
from p2pnode.client.picture import depths, picture
from p2pnode.types import Announcement, LayerRange, Liveness, SwarmView, uncovered
from tests.gateway.scenes import alive, gone, leaving, scene, spotless
from tests.support.announcements import announcement, key_pair

RANGES = st.lists(
    st.tuples(st.integers(0, 11), st.integers(0, 11)).map(
        lambda ends: LayerRange(min(ends), max(ends) + 1)
    ),
    max_size=8,
)


def peers(*ranges: str, **changes: object) -> list[Announcement]:
    return [
        announcement(key_pair(number), layers=LayerRange.parse(text), **changes)
        for number, text in enumerate(ranges)
    ]


def shown(view: SwarmView, **more: Any) -> dict[str, Any]:
    """The picture of what gossip says, without what a client has seen, unless that is given."""
    seen, rtts_s = more.pop("seen", ()), more.pop("rtts_s", {})
    return picture(Observed(view=view, seen=seen, rtts_s=rtts_s), **more)


def coverage(announced: Sequence[Announcement], **health: object) -> list[tuple[str, int]]:
    (model,) = shown(SwarmView(tuple(announced), **health))["models"]  # type: ignore[arg-type]
    return [(each["layers"], each["num_peers"]) for each in model["coverage"]]


@given(RANGES)
def test_depths_say_of_each_layer_how_many_hold_it(ranges: list[LayerRange]) -> None:
    found = [(layer, depth) for part, depth in depths(ranges, 10) for layer in part]
    held = [sum(layer in each for each in ranges) for layer in range(10)]
    assert found == list(enumerate(held))


@given(RANGES)
def test_neighbours_in_depths_differ(ranges: list[LayerRange]) -> None:
    numbers = [depth for _, depth in depths(ranges, 10)]
    assert all(one != other for one, other in pairwise(numbers))


def test_thin_and_missing_layers_are_told() -> None:
    found = peers("0-8", "0-8", "18-26")
    assert coverage(found) == [("0-8", 2), ("9-17", 0), ("18-26", 1)]
    assert shown(SwarmView(tuple(found)))["models"][0]["uncovered"] == ["9-17"]


@pytest.mark.parametrize("what", ["dead", "suspect", "draining"])
def test_who_does_not_stay_covers_nothing(what: str) -> None:
    found = peers("0-26", "0-8")
    peer = found[0].peer
    states = {
        "dead": gone(peer),
        "suspect": gone(peer, Liveness.SUSPECT),
        "draining": leaving(peer),
    }
    assert coverage(found, health={peer: states[what]}) == [("0-8", 1), ("9-26", 0)]
    told = shown(SwarmView(tuple(found), {peer: states[what]}))["peers"]
    assert [each["layers"] for each in told] == ["0-8", "0-26"]  # it is shown all the same


def test_blocks_of_different_numerics_do_not_cover_for_each_other() -> None:
    found = [*peers("0-13"), announcement(key_pair(7), layers=LayerRange(14, 27), numerics="int8")]
    assert coverage(found) == [("0-13", 1), ("14-26", 0), ("0-13", 0), ("14-26", 1)]


def test_most_peers_decide_what_a_model_is_called_and_how_long_it_is() -> None:
    liar = announcement(key_pair(9), model="A", num_layers=10_000, layers=LayerRange(0, 10_000))
    (model,) = shown(SwarmView((liar, *peers("0-26", "0-26"))))["models"]
    assert (model["model"], model["num_layers"]) == ("stories", 27)
    assert [each["layers"] for each in model["coverage"]] == ["0-26"]


def test_the_picture_tells_what_gossip_and_the_client_know() -> None:
    source = scene("0-8")
    (peer,) = source.swarm()["peers"]
    assert peer["health"] | {"liveness": "alive", "is_draining": False} == peer["health"]
    assert peer["rtt_s"] == 0.012
    assert peer["reputation"]["failures"] == {}
    assert peer["reputation"]["step_p50_s"] == 0.032


def test_of_whom_nothing_is_known_nothing_is_told() -> None:
    (peer,) = shown(SwarmView(tuple(peers("0-8"))))["peers"]
    assert [peer["health"], peer["rtt_s"], peer["reputation"]] == [None, None, None]


def test_noise_makes_no_new_picture() -> None:
    (one,) = peers("0-26")
    seen = spotless(one.peer)
    quiet = dataclasses.replace(seen, back_off_s=3.1, score=0.501)
    noisy = dataclasses.replace(seen, back_off_s=3.2, score=0.502)
    view = SwarmView((one,), {one.peer: alive(one.peer)})
    pictures = [
        shown(view, seen=[each], rtts_s={one.peer: rtt_s})
        for each, rtt_s in ((quiet, 0.01231), (noisy, 0.01229))
    ]
    assert pictures[0] == pictures[1]


def test_a_crowd_is_counted_and_cut() -> None:
    found = shown(SwarmView(tuple(peers(*["0-26"] * 30))), max_peers=8)
    assert (found["num_peers"], len(found["peers"])) == (30, 8)
    assert found["models"][0]["coverage"][0]["num_peers"] == 30


def test_an_empty_swarm_is_a_picture_too() -> None:
    found = shown(SwarmView(()))
    assert (found["models"], found["peers"], found["num_peers"]) == ([], [], 0)


@given(st.text(max_size=40), st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_whatever_a_peer_announces_is_json(name: str, figure: float) -> None:
    (one,) = peers("0-26", model=name, device_name=name, numerics=name, tokens_per_s=figure)
    found = shown(SwarmView((one,)))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["models"][0]["uncovered"] == [str(e) for e in uncovered([one.layers], 27)]
