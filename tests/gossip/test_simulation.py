"""Whole swarms of pure cores: budgets, spread and deaths, without sockets."""

from __future__ import annotations

from statistics import mean

import pytest

from p2pnode.gossip.simulation import EPOCH_S, Simulation
from p2pnode.net.memory import fake_identity
from p2pnode.types import Health


def simulation(count: int, *, is_busy: bool) -> Simulation:
    identities = [fake_identity(number) for number in range(count)]

    def describe(number: int, now: float) -> Health:
        load = (7 * int(now) + number) % 9 if is_busy else 0
        return Health(
            peer=identities[number].peer,
            sequence=0,
            issued_at=0.0,
            num_sessions=load,
            queue_depth=load,
            kv_free_tokens=60_000,
            step_times=((1, 0.01, 0.02), (6, 0.011, 0.021), (50, 0.1, 0.2)),
        )

    return Simulation(
        [(each.peer, each.sign) for each in identities],
        describe=describe,
        rtt_s=lambda one, other: 0.02,
    )


def received_per_s(swarm: Simulation, seconds: int) -> list[float]:
    before = list(swarm.received_bytes)
    swarm.run(seconds)
    pairs = zip(before, swarm.received_bytes, strict=True)
    return [(after - was) / seconds for was, after in pairs]


def oldest_s(swarm: Simulation) -> float:
    """The age of the oldest health that anybody holds."""
    return max(
        EPOCH_S + swarm.now - each.health.issued_at
        for core in swarm.cores
        for each in core.known.snapshot().values()
    )


@pytest.mark.parametrize(
    ("count", "is_busy", "most", "oldest"),
    [(20, False, 2_000, 16.0), (20, True, 8_000, 4.0), (150, False, 8_000, 22.0)],
)
def test_a_node_receives_no_more_than_its_budget(
    count: int, is_busy: bool, most: float, oldest: float
) -> None:
    swarm = simulation(count, is_busy=is_busy)
    swarm.run(20)
    assert {len(core.known.book) for core in swarm.cores} == {count}
    assert mean(received_per_s(swarm, 20)) < most
    assert oldest_s(swarm) < oldest


def test_in_a_large_swarm_a_death_is_known_to_all_and_nobody_else_is_called_dead() -> None:
    swarm = simulation(60, is_busy=False)
    swarm.run(30)
    victim = swarm.cores[30].peer
    swarm.gone.add(30)
    swarm.run(4)
    assert not any(core.known.is_alive(victim) for core in swarm.cores if core.peer != victim)
    swarm.run(16)
    dead = [set(core.detector.dead) for core in swarm.cores if core.peer != victim]
    assert dead == [{victim}] * 59


def test_neighbours_are_few_and_change_with_time() -> None:
    swarm = simulation(40, is_busy=False)
    swarm.run(5)
    first = set(swarm.cores[0].members.neighbours)
    swarm.run(100)
    later = set(swarm.cores[0].members.neighbours)
    assert len(first) == len(later) == 24
    assert 2 <= len(first - later) <= 8
