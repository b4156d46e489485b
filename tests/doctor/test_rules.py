"""From measured values to the cause: each rule at its boundary, and which of two goes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from p2pnode.doctor import slow
from p2pnode.doctor.failing import MIN_ERRORS, OUT_OF_MEMORY, SILENT_S
from p2pnode.doctor.measured import ChainMeasured, HopMeasured, Measured, Ways
from p2pnode.doctor.report import Cause, Verdict
from p2pnode.doctor.rules import judge
from p2pnode.errors import (
    JoinFailed,
    NoChain,
    PeerError,
    PeerFault,
    PeerLost,
    PeerRefused,
    PeerTimeout,
)
from p2pnode.types import LayerRange, Liveness
from tests.support.peers import announced, peer, view

A, B, C = (peer(name) for name in "ABC")
SWARM = view(
    announced("A", "0-2", memory_bytes_per_s=2e10),
    announced("B", "3-5", memory_bytes_per_s=2e10),
    announced("C", "6-8", memory_bytes_per_s=2e10),
    A={},
    B={},
    C={},
)


def hop(
    name: str, layers: str, rtts_s: Sequence[float] = (0.04,) * 30, **changes: Any
) -> HopMeasured:
    plain = HopMeasured(
        peer=peer(name),
        layers=LayerRange.parse(layers),
        connect_s=0.1,
        ways=Ways(rtts_s=tuple(rtts_s)),
        queue_s=0.0,
        compute_s=0.01,
        way_s=0.02,
        transfer_s=0.0,
    )
    return replace(plain, **changes)


HOPS = (hop("A", "0-2"), hop("B", "3-5"), hop("C", "6-8"))
CHAIN = ChainMeasured(hops=HOPS, num_tokens=32, ttft_s=0.17, token_s=0.11)
HEALTHY = Measured(join_s=0.5, directory_s=0.1, view=SWARM, chain=CHAIN)


def judged(**changes: Any) -> Verdict:
    verdict = judge(replace(HEALTHY, **changes))
    assert bool(verdict.remedy) is (verdict.cause is not Cause.NONE)
    assert verdict.evidence
    return verdict


def with_b(
    token_s: float = 0.11, *, rtts_s: Sequence[float] = (0.04,) * 30, **changes: Any
) -> Verdict:
    """The verdict on a chain whose second hop is another one."""
    hops = (HOPS[0], hop("B", "3-5", rtts_s, **changes), HOPS[2])
    return judged(chain=replace(CHAIN, hops=hops, token_s=token_s))


def test_a_healthy_chain_has_no_cause_and_its_figures_are_said() -> None:
    verdict = judged()
    assert (verdict.cause, verdict.peer) == (Cause.NONE, None)
    assert verdict.evidence == (
        "3 hops, 110 ms per token, the first after 170 ms; round trips 40 ms to 40 ms"
    )


# --- what fails


def test_no_swarm_is_said_before_all_else() -> None:
    verdict = judged(
        join_error=JoinFailed("nobody\nanswered"), failure=NoChain("x"), pressure="full"
    )
    assert verdict.cause is Cause.DISCOVERY
    assert "nobody\\x0aanswered" in verdict.evidence


@pytest.mark.parametrize(
    ("errors", "cause"),
    [
        ([PeerLost(B, "gone")], Cause.NODE_FAILING),
        ([PeerFault(B, "compute: step failed")], Cause.NODE_FAILING),
        ([PeerTimeout(B, "late")], Cause.NONE),
        ([PeerTimeout(B, "late"), PeerTimeout(C, "late")], Cause.NONE),
        ([PeerTimeout(B, "late"), PeerTimeout(B, "late")], Cause.NODE_FAILING),
        ([PeerFault(B, "compute: out of memory in mid-step")], Cause.MEMORY_PRESSURE),
        ([PeerRefused(B, "has no room")], Cause.NONE),
    ],
)
def test_a_peer_that_was_blamed(errors: list[PeerError], cause: Cause) -> None:
    verdict = judged(errors=tuple(errors))
    assert verdict.cause is cause
    assert verdict.peer == (None if cause is Cause.NONE else B)


def test_late_once_is_failing_when_nobody_is_left() -> None:
    verdict = judged(errors=(PeerTimeout(B, "late"),), failure=NoChain("no live peer"), chain=None)
    assert (verdict.cause, verdict.peer) == (Cause.NODE_FAILING, B)


@pytest.mark.parametrize(
    ("waited_s", "cause"), [(SILENT_S - 0.1, Cause.NONE), (SILENT_S, Cause.NODE_FAILING)]
)
def test_a_hop_that_has_fallen_silent(waited_s: float, cause: Cause) -> None:
    assert judged(chain=replace(CHAIN, awaited=B, waited_s=waited_s)).cause is cause
    assert (
        judged(chain=replace(CHAIN, awaited=B, waited_s=waited_s, token_s=2.0)).cause is Cause.NONE
    )


@pytest.mark.parametrize(
    ("errors", "others", "cause"),
    [
        ({"device": MIN_ERRORS - 1}, {}, Cause.NONE),
        ({"device": MIN_ERRORS}, {}, Cause.NODE_FAILING),
        ({"device": 6}, {"device": 2}, Cause.NONE),
        ({"device": 7}, {"device": 2}, Cause.NODE_FAILING),
        ({OUT_OF_MEMORY: 1}, {}, Cause.NONE),
        ({OUT_OF_MEMORY: 2}, {}, Cause.MEMORY_PRESSURE),
    ],
)
def test_errors_that_a_peer_tells_of_are_held_against_those_of_its_peers(
    errors: dict[str, int], others: dict[str, int], cause: Cause
) -> None:
    fields = {"errors": tuple(others.items())}
    told = view(*SWARM.announcements, A=fields, B={"errors": tuple(errors.items())}, C=fields)
    verdict = judged(view=told)
    assert verdict.cause is cause
    assert verdict.peer == (None if cause is Cause.NONE else B)


def test_no_room_is_overload() -> None:
    failure = NoChain("no peer has room for 72 tokens now in layers 3-5")
    assert judged(failure=failure, chain=None).cause is Cause.OVERLOADED
    refused = judged(
        failure=NoChain("x"), errors=(PeerRefused(B, "1 sessions are open"),), chain=None
    )
    assert (refused.cause, refused.peer) == (Cause.OVERLOADED, B)


def test_layers_of_a_dead_peer_that_is_still_announced_are_its_fault() -> None:
    failure = NoChain("no live peer serves layers 3-5")
    assert judged(failure=failure, chain=None).cause is Cause.DISCOVERY
    dead = view(*SWARM.announcements, A={}, B={"liveness": Liveness.SUSPECT}, C={})
    verdict = judged(failure=failure, chain=None, view=dead)
    assert (verdict.cause, verdict.peer) == (Cause.NODE_FAILING, B)


def test_no_token_at_all_is_no_health() -> None:
    assert judged(chain=None).cause is Cause.DISCOVERY
    assert "directory" in judged(chain=None, directory_s=None).evidence
    none = replace(CHAIN, num_tokens=0, token_s=None)
    assert judged(chain=none, probed_s=6.0).cause is Cause.DISCOVERY
    busy = replace(none, hops=(HOPS[0], hop("B", "3-5", prompt_s=3.0), HOPS[2]))
    verdict = judged(chain=busy, probed_s=6.0)
    assert (verdict.cause, verdict.peer) == (Cause.SLOW_DEVICE, B)


# --- what is slow


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
