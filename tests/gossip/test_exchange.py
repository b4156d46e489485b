"""Gossip over real links and an in-memory network: who learns what, when, and at what price.

The long ones run without asyncio's debug mode, which makes a virtual minute five times as dear.
"""

from __future__ import annotations

import asyncio
import dataclasses
from statistics import median

import pytest

from p2pnode.lab.virtual_time import run_virtual
from p2pnode.net.memory import Line
from p2pnode.types import Liveness
from p2pnode.wire.messages import CONTROL
from tests.gossip.swarm import GossipSwarm, Participant, until

ALIVE, SUSPECT, DEAD = Liveness.ALIVE, Liveness.SUSPECT, Liveness.DEAD


def now() -> float:
    return asyncio.get_running_loop().time()


async def seconds_until_all(nodes: list[Participant], other: Participant, is_so: Liveness) -> float:
    """How long until every one of them believes that of another."""
    return await until(lambda: all(node.believes(other) is is_so for node in nodes))


def is_draining(node: Participant, other: Participant) -> bool:
    """Whether a node knows that another leaves."""
    seen = node.sees(other)
    return seen is not None and seen.health.is_draining


@pytest.mark.virtual_time
async def test_everybody_hears_of_everybody_within_seconds_and_so_does_a_client() -> None:
    async with GossipSwarm() as swarm:
        swarm.start(8)
        await swarm.until_all_known()
        assert now() < 6.0
        async with swarm.client() as client:
            assert await until(lambda: len(client.gossip.snapshot()) == 8) < 3.0
            await asyncio.sleep(20)
            assert all(client.peer not in node.gossip.snapshot() for node in swarm.nodes)
            links = [client.links.get(node.peer, CONTROL) for node in swarm.nodes]
            assert 1 <= sum(link is not None for link in links) <= 4
            assert swarm.network.streams_opened.total() < 60 + 4, "one for each pair, no more"


@pytest.mark.virtual_time
async def test_a_change_reaches_everybody_within_two_periods() -> None:
    async with GossipSwarm() as swarm:
        swarm.start(8)
        await swarm.until_all_known()
        await asyncio.sleep(5)
        first, *others = swarm.nodes
        first.health = dataclasses.replace(first.health, is_draining=True)
        assert await until(lambda: all(is_draining(node, first) for node in others)) < 2.0
        for node in others:
            assert [peer for _, peer, each in node.changes if each.health.is_draining] == [
                first.peer
            ]


@pytest.mark.virtual_time
async def test_what_the_owner_publishes_by_hand_is_known_after_one_way() -> None:
    async with GossipSwarm() as swarm:
        swarm.start(4)
        await swarm.until_all_known()
        await asyncio.sleep(5)
        first, *others = swarm.nodes
        first.health = dataclasses.replace(first.health, is_draining=True)
        first.gossip.publish()
        await asyncio.sleep(0.05)
        assert all(is_draining(node, first) for node in others)


@pytest.mark.virtual_time
async def test_a_killed_peer_is_suspected_at_once_and_dead_within_seconds() -> None:
    async with GossipSwarm() as swarm:
        swarm.start(8)
        await swarm.until_all_known()
        await asyncio.sleep(5)
        victim, *others = swarm.nodes
        swarm.kill(victim)
        assert await seconds_until_all(others, victim, SUSPECT) < 1.0
        assert await seconds_until_all(others, victim, DEAD) < 8.0
        for node in others:
            assert [(peer, each.liveness) for _, peer, each in node.changes] == [
                (victim.peer, DEAD)
            ]


@pytest.mark.virtual_time
async def test_a_frozen_peer_is_suspected_within_seconds_dead_then_and_alive_when_it_thaws() -> (
    None
):
    async with GossipSwarm() as swarm:
        swarm.start(8)
        await swarm.until_all_known()
        await asyncio.sleep(5)
        victim, *others = swarm.nodes
        swarm.network.freeze(victim.peer)
        assert await seconds_until_all(others, victim, SUSPECT) < 8.0
        assert await seconds_until_all(others, victim, DEAD) < 10.0
        swarm.network.thaw(victim.peer)
        assert await seconds_until_all(others, victim, ALIVE) < 15.0
        await asyncio.sleep(15)
        for node in swarm.nodes:
            assert all(each.liveness is ALIVE for each in node.gossip.snapshot().values())


@pytest.mark.virtual_time
async def test_who_cannot_reach_a_peer_that_others_reach_does_not_call_it_dead() -> None:
    async with GossipSwarm() as swarm:
        swarm.start(6)
        await swarm.until_all_known()
        await asyncio.sleep(5)
        one, other, *_ = swarm.nodes
        swarm.network.partition([one.peer], [other.peer])
        await asyncio.sleep(60)
        for node in swarm.nodes:
            assert not [each for _, _, each in node.changes if each.liveness is DEAD]


@pytest.mark.virtual_time
async def test_the_halves_of_a_partition_call_each_other_dead_and_find_each_other_again() -> None:
    async with GossipSwarm() as swarm:
        swarm.start(8)
        await swarm.until_all_known()
        await asyncio.sleep(5)
        left, right = swarm.nodes[:4], swarm.nodes[4:]
        swarm.network.partition([node.peer for node in left], [node.peer for node in right])
        for node in right:
            assert await seconds_until_all(left, node, DEAD) < 60.0
        swarm.network.heal()
        for node in right:
            assert await seconds_until_all(left, node, ALIVE) < 60.0


@pytest.mark.parametrize(
    "line",
    [
        Line(latency_s=0.25, jitter_s=0.125),
        Line(latency_s=0.03, jitter_s=0.03, loss=0.1),
    ],
    ids=["50 % jitter", "10 % loss"],
)
def test_nobody_is_called_dead_in_ten_minutes_of(line: Line) -> None:
    run_virtual(_nobody_is_called_dead_in_ten_minutes_of(line))


async def _nobody_is_called_dead_in_ten_minutes_of(line: Line) -> None:
    async with GossipSwarm(line) as swarm:
        swarm.start(5)
        await asyncio.sleep(600)
        for node in swarm.nodes:
            assert not [each for _, _, each in node.changes if each.liveness is DEAD]
            assert len(node.gossip.snapshot()) == 5


def test_coordinates_predict_round_trips_that_were_measured_elsewhere() -> None:
    run_virtual(_coordinates_predict_round_trips_that_were_measured_elsewhere())


async def _coordinates_predict_round_trips_that_were_measured_elsewhere() -> None:
    async with GossipSwarm() as swarm:
        swarm.start(9)
        places = [(0.0, 0.0), (0.06, 0.0), (0.02, 0.05)]
        delays = {}
        for a, one in enumerate(swarm.nodes):
            for b, other in enumerate(swarm.nodes[:a]):
                (x, y), (u, v) = places[a % 3], places[b % 3]
                delays[a, b] = 0.004 + ((x - u) ** 2 + (y - v) ** 2) ** 0.5
                swarm.network.set_line(one.peer, other.peer, Line(latency_s=delays[a, b]))
        await asyncio.sleep(60)
        errors = []
        for (a, b), delay_s in delays.items():
            one, other = swarm.nodes[a], swarm.nodes[b]
            seen = swarm.nodes[4].sees(one), swarm.nodes[4].sees(other)
            assert seen[0] is not None
            assert seen[1] is not None
            predicted = seen[0].health.coordinate.rtt_s(seen[1].health.coordinate)
            errors.append(abs(predicted / (2 * delay_s) - 1))
            assert one.gossip.rtt_s(other.peer) == pytest.approx(2 * delay_s, rel=0.05)
        assert median(errors) < 0.15


def test_twenty_nodes_cost_little_while_nothing_changes() -> None:
    run_virtual(_twenty_nodes_cost_little_while_nothing_changes())


async def _twenty_nodes_cost_little_while_nothing_changes() -> None:
    async with GossipSwarm() as swarm:
        swarm.start(20)
        await swarm.until_all_known()
        before, began = swarm.received_bytes(), now()
        await asyncio.sleep(10)
        spent_s = now() - began
        for peer, after in swarm.received_bytes().items():
            assert (after - before[peer]) / spent_s < 2_000


@pytest.mark.virtual_time
async def test_clocks_that_are_a_little_off_do_no_harm() -> None:
    async with GossipSwarm() as swarm:
        swarm.start(4)
        swarm.skew_s = {swarm.nodes[0].peer: 2.0, swarm.nodes[1].peer: -2.0}
        await asyncio.sleep(60)
        for node in swarm.nodes:
            assert len(node.gossip.snapshot()) == 4
            assert node.changes == []


@pytest.mark.virtual_time
async def test_a_node_whose_clock_is_minutes_off_is_not_heard_and_not_cut_off() -> None:
    async with GossipSwarm() as swarm:
        swarm.start(4)
        odd = swarm.nodes[0]
        swarm.skew_s = {odd.peer: 300.0}
        await asyncio.sleep(60)
        for node in swarm.nodes[1:]:
            assert node.sees(odd) is None
            assert len(node.gossip.snapshot()) == 3
