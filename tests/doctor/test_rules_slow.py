"""From measured values to the cause: what is slow, and which of two causes goes first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from p2pnode.doctor import slow
from p2pnode.doctor.measured import ChainMeasured, Ways
from p2pnode.doctor.report import Cause
from tests.doctor.cases import CHAIN, HOPS, SWARM, A, B, hop, judged, with_b
from tests.support.peers import announced, view


@pytest.mark.parametrize(("queue_s", "cause"), [(0.04, Cause.NONE), (0.06, Cause.OVERLOADED)])
def test_waiting_for_a_device_counts_when_it_is_a_third_of_a_token(
    queue_s: float, cause: Cause
) -> None:
    assert with_b(0.15, queue_s=queue_s).cause is cause


def test_waiting_for_less_than_the_computation_is_usual() -> None:
    assert with_b(0.15, queue_s=0.019, compute_s=0.02).cause is Cause.NONE


@pytest.mark.parametrize(
    ("compute_s", "token_s", "cause"),
    [
        (0.0249, 0.03, Cause.NONE),
        (0.025, 0.03, Cause.SLOW_DEVICE),
        (0.06, 0.16, Cause.NONE),  # six times as slow, and less than a third of a token
        (0.1, 0.2, Cause.SLOW_DEVICE),
    ],
)
def test_a_device_that_has_fallen_behind_what_it_measured_itself(
    compute_s: float, token_s: float, cause: Cause
) -> None:
    verdict = with_b(token_s, compute_s=compute_s)
    assert verdict.cause is cause
    if cause is Cause.SLOW_DEVICE:
        assert verdict.peer == B
        assert "when it started it took 10 ms and moved 20.0 GB/s" in verdict.evidence


@pytest.mark.parametrize(("own_s", "cause"), [(0.0299, Cause.NONE), (0.03, Cause.SLOW_DEVICE)])
def test_a_device_is_slow_by_what_peers_need_for_the_same_layers(
    own_s: float, cause: Cause
) -> None:
    slow_one = announced("B", "3-5", latency_s=own_s)
    swarm = view(
        *SWARM.announcements[::2],
        slow_one,
        announced("D", "3-5"),
        announced("E", "3-8", latency_s=0.02),
    )
    hops = (HOPS[0], hop("B", "3-5", compute_s=own_s), HOPS[2])
    chain = replace(CHAIN, hops=hops, token_s=0.05)
    assert judged(view=swarm, chain=chain).cause is cause


def test_peers_of_other_layers_tell_less() -> None:
    """They may lack the head that makes the last block slow."""
    for own_s, cause in ((0.055, Cause.NONE), (0.06, Cause.SLOW_DEVICE)):
        swarm = view(*SWARM.announcements[:2], announced("C", "6-8", latency_s=own_s))
        hops = (*HOPS[:2], hop("C", "6-8", compute_s=own_s))
        assert judged(view=swarm, chain=replace(CHAIN, hops=hops)).cause is cause


def test_a_device_that_is_slow_for_many_is_overloaded() -> None:
    busy = {"num_sessions": slow.SHARED_BY, "device_load": slow.BUSY_LOAD}
    fewer = {**busy, "num_sessions": slow.SHARED_BY - 1}
    for told, cause in ((busy, Cause.OVERLOADED), (fewer, Cause.SLOW_DEVICE)):
        hops = (HOPS[0], hop("B", "3-5", compute_s=0.1), HOPS[2])
        swarm = view(*SWARM.announcements, B=told)
        assert judged(view=swarm, chain=replace(CHAIN, hops=hops, token_s=0.2)).cause is cause


@pytest.mark.parametrize(("rtt_s", "cause"), [(0.5, Cause.NONE), (0.501, Cause.NETWORK)])
def test_a_round_trip_above_the_limit(rtt_s: float, cause: Cause) -> None:
    verdict = with_b(0.6, rtts_s=(rtt_s,) * 10)
    assert verdict.cause is cause
    assert with_b(0.6, rtts_s=(0.04, 0.04, 3.0)).cause is Cause.NONE, "one sample is none"


def test_the_limit_is_the_callers() -> None:
    hops = (HOPS[0], hop("B", "3-5", (0.2,) * 9), HOPS[2])
    chain = replace(CHAIN, hops=hops)
    assert judged(chain=chain).cause is Cause.NONE
    assert judged(chain=chain, rtt_limit_s=0.1).cause is Cause.NETWORK


@pytest.mark.parametrize(
    ("num_late", "num_lost", "cause"),
    [(3, 0, Cause.NONE), (5, 0, Cause.NETWORK), (2, 3, Cause.NETWORK), (0, 4, Cause.NONE)],
)
def test_an_unsteady_way(num_late: int, num_lost: int, cause: Cause) -> None:
    late = 0.04 + slow.LATE_S + 0.01
    ways = Ways(rtts_s=(0.04,) * 25 + (late,) * num_late, num_lost=num_lost)
    assert with_b(ways=ways).cause is cause


def test_what_is_late_on_all_ways_is_this_machine() -> None:
    rtts_s = (0.04,) * 20 + (0.4,) * 6
    hops = tuple(replace(each, ways=Ways(rtts_s=rtts_s)) for each in HOPS)
    assert judged(chain=replace(CHAIN, hops=hops)).cause is Cause.NONE


@pytest.mark.parametrize(("way_s", "cause"), [(0.25, Cause.NONE), (0.26, Cause.NETWORK)])
def test_the_way_between_two_hops(way_s: float, cause: Cause) -> None:
    assert with_b(0.4, way_s=way_s).cause is cause


@pytest.mark.parametrize(
    ("transfer_s", "ttft_s", "cause"),
    [
        (0.09, 0.15, Cause.NONE),
        (0.1, 0.2, Cause.THIN_LINK),
        (0.5, 1.01, Cause.NONE),
    ],
)
def test_a_thin_link_takes_longer_than_all_else(
    transfer_s: float, ttft_s: float, cause: Cause
) -> None:
    hops = (HOPS[0], hop("B", "3-5", transfer_s=transfer_s), HOPS[2])
    verdict = judged(chain=replace(CHAIN, hops=hops, ttft_s=ttft_s))
    assert verdict.cause is cause
    assert verdict.peer == (None if cause is Cause.NONE else A), "whose uplink it is"


def fine(num_hops: int, *, compute_s: float = 0.004, way_s: float = 0.02) -> ChainMeasured:
    hops = tuple(
        hop(chr(ord("A") + index), f"{index}-{index}", compute_s=compute_s, way_s=way_s)
        for index in range(num_hops)
    )
    token_s = num_hops * (compute_s + way_s) + 0.02
    return replace(CHAIN, hops=hops, token_s=token_s)


def test_a_split_is_too_fine_from_four_hops_on_where_ways_are_most_of_it() -> None:
    assert judged(chain=fine(3)).cause is Cause.NONE
    assert judged(chain=fine(4)).cause is Cause.SPLIT_TOO_FINE
    assert judged(chain=fine(4, compute_s=0.01)).cause is Cause.NONE
    assert judged(chain=fine(4, compute_s=0.0001, way_s=0.0005)).cause is Cause.NONE, "a LAN"


def test_seconds_until_anything_begins() -> None:
    assert judged(join_s=5.0, directory_s=3.0).cause is Cause.NONE
    assert judged(join_s=5.1).cause is Cause.DISCOVERY
    assert judged(directory_s=3.1).cause is Cause.DISCOVERY
    assert with_b(connect_s=1.0).cause is Cause.NONE
    assert with_b(connect_s=1.1).peer == B
    assert with_b(0.6, connect_s=1.1, rtts_s=(0.3,) * 9).cause is Cause.NONE, "far, not silent"


def test_of_two_causes_the_dearer_one_is_named() -> None:
    assert with_b(1.0, rtts_s=(0.6,) * 9, compute_s=0.4).cause is Cause.NETWORK
    assert with_b(1.8, rtts_s=(0.6,) * 9, compute_s=1.0).cause is Cause.SLOW_DEVICE
    assert judged(
        join_s=6.0, chain=replace(CHAIN, hops=(*HOPS[:2], hop("C", "6-8", (0.6,) * 9)))
    ).cause is (Cause.NETWORK)


# --- this machine


def test_memory_of_this_machine_explains_what_nothing_else_does() -> None:
    assert judged(pressure="0.1 GB available").cause is Cause.MEMORY_PRESSURE
    slow_b = (HOPS[0], hop("B", "3-5", compute_s=0.1), HOPS[2])
    chain = replace(CHAIN, hops=slow_b, token_s=0.2)
    assert judged(pressure="full", chain=chain).cause is Cause.SLOW_DEVICE
    here = judged(device="71 C", chain=chain, own_peers=frozenset({B}))
    assert here.evidence.endswith("it runs here: 71 C")
    here = judged(pressure="full", chain=chain, own_peers=frozenset({B}))
    assert (here.cause, here.peer) == (Cause.MEMORY_PRESSURE, B)
