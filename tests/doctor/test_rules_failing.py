"""From measured values to the cause: what fails, each rule at its boundary."""

from __future__ import annotations

from dataclasses import replace

import pytest

from p2pnode.doctor.failing import MIN_ERRORS, OUT_OF_MEMORY, SILENT_S
from p2pnode.doctor.report import Cause
from p2pnode.errors import (
    JoinFailed,
    NoChain,
    PeerError,
    PeerFault,
    PeerLost,
    PeerRefused,
    PeerTimeout,
)
from p2pnode.types import Liveness
from tests.doctor.cases import CHAIN, HOPS, SWARM, B, C, hop, judged
from tests.support.peers import view


def test_a_healthy_chain_has_no_cause_and_its_figures_are_said() -> None:
    verdict = judged()
    assert (verdict.cause, verdict.peer) == (Cause.NONE, None)
    assert verdict.evidence == (
        "3 hops, 110 ms per token, the first after 170 ms; round trips 40 ms to 40 ms"
    )


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
