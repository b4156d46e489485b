"""A node whose clock is wrong finds that out, and whoever has slept or hears one liar does not."""

from __future__ import annotations

import asyncio
import logging

import pytest

from p2pnode.gossip.clock import JUDGE_EVERY_S, MIN_WITNESSES, ClockWatch
from p2pnode.lab.virtual_time import run_virtual
from p2pnode.net.memory import fake_identity
from tests.gossip.swarm import GossipSwarm

PEERS = [fake_identity(number).peer for number in range(5)]


def judged(watch: ClockWatch, spans: list[list[float]]) -> list[float | None]:
    """What is said at the end of each span, in which peers told healths of those ages."""
    watch.judge(0.0)
    told = []
    for number, ages in enumerate(spans, start=1):
        for peer, age_s in zip(PEERS, ages, strict=False):
            watch.heard(peer, age_s)
        told.append(watch.judge(number * JUDGE_EVERY_S))
    return told


@pytest.mark.parametrize("ahead_s", [60.0, -60.0])
def test_a_clock_that_stays_wrong_is_noticed(ahead_s: float) -> None:
    assert judged(ClockWatch(), [[0.1] * 3, [ahead_s] * 3, [ahead_s] * 3, [0.1] * 3]) == [
        None,
        None,
        ahead_s,
        None,
    ]


def test_a_minority_whose_clocks_are_wrong_does_not_make_ours_wrong() -> None:
    assert judged(ClockWatch(), [[-60.0, -90.0, 0.1, 0.1, 0.2]] * 4) == [None] * 4


@pytest.mark.parametrize("wrong_s", [120.0, -120.0])
def test_of_two_peers_one_is_not_most(wrong_s: float) -> None:
    assert judged(ClockWatch(), [[wrong_s, 0.1]] * 4) == [None] * 4


def test_one_peer_alone_is_no_witness() -> None:
    assert MIN_WITNESSES == 2
    assert judged(ClockWatch(), [[-60.0]] * 4) == [None] * 4


def test_one_span_that_was_spent_asleep_is_forgiven() -> None:
    assert judged(ClockWatch(), [[0.1] * 3, [50.0] * 3, [0.1] * 3, [50.0] * 3]) == [None] * 4


def test_a_health_that_waited_does_not_count_beside_one_that_did_not() -> None:
    watch = ClockWatch()
    watch.judge(0.0)
    for span in (1, 2, 3):
        for age_s in (70.0, 0.1, 80.0):
            watch.heard(PEERS[0], age_s)
            watch.heard(PEERS[1], age_s)
        assert watch.judge(span * JUDGE_EVERY_S) is None


@pytest.mark.parametrize("skew_s", [120.0, -120.0])
def test_a_running_node_whose_clock_jumps_says_so_and_the_others_do_not(
    skew_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="p2pnode.gossip.gossip"):
        warnings = run_virtual(_warnings_after_a_jump(skew_s, caplog))
    assert warnings
    assert all(f"ahead_s={skew_s:.0f} " in warning for warning in warnings)


async def _warnings_after_a_jump(skew_s: float, caplog: pytest.LogCaptureFixture) -> list[str]:
    async with GossipSwarm() as swarm:
        swarm.start(3)
        await asyncio.sleep(125)
        assert caplog.messages == [], "while all clocks are right"
        swarm.skew_s = {swarm.nodes[0].peer: skew_s}
        await asyncio.sleep(190)
        wrong = [each for each in caplog.messages if "clock wrong" in each]
        swarm.skew_s = {}
        await asyncio.sleep(65)
        count = len(caplog.messages)
        await asyncio.sleep(125)
        assert len(caplog.messages) == count, "the clock is right again"
        return wrong
