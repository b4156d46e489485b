"""Every cause is staged in the lab, on virtual time, and named; a healthy swarm has none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from p2pnode.doctor.doctor import WITHIN_S, Asked, examine
from p2pnode.doctor.here import Here
from p2pnode.doctor.report import Cause, Grade, Report
from p2pnode.errors import JoinFailed, PeerLost, PeerTimeout
from p2pnode.lab.faults import SLOW_FACTOR
from p2pnode.lab.member import LabMember
from p2pnode.lab.swarm import LabNode, LocalSwarm
from p2pnode.model.device import Device
from p2pnode.net.memory import Line
from p2pnode.swarm.network import Joined
from p2pnode.tasks import Tasks
from p2pnode.types import LayerRange, PeerId
from tests.support.peers import peer

pytestmark = pytest.mark.virtual_time

THREE = ("0-2", "3-5", "6-8")
COMPUTE_S = 0.01
HERE = Here(
    memory_total_bytes=16 << 30,
    memory_free_bytes=8 << 30,
    disk_free_bytes=100 << 30,
    disk_folder="/home",
    device=Device(kind="cpu", name="lab", total_bytes=16 << 30, free_bytes=8 << 30),
    memory_bytes_per_s=1e10,
    model="",
)


@asynccontextmanager
async def staged(
    folder: Path, cache: Path, *ranges: str, compute_s: float = COMPUTE_S, **settings: Any
) -> AsyncIterator[Staged]:
    """Nodes that compute for so long, 20 ms from each other, and the doctor's own network."""
    async with LocalSwarm(folder, cache=cache, latency_s=0.02, **settings) as swarm:
        nodes = [
            swarm.add(LayerRange.parse(text), latency_s=compute_s, compute_s=compute_s)
            for text in ranges or THREE
        ]
        for node in nodes:
            await node.is_serving.wait()
        yield Staged(swarm, nodes, swarm.guest())


@dataclass(slots=True)
class Staged:
    swarm: LocalSwarm
    nodes: list[LabNode]
    guest: LabMember

    async def examined(self, here: Here = HERE) -> Report:
        asked = Asked(look=lambda: iter([here]), wall_clock=self.swarm.wall_clock)
        report = await examine(self.guest, asked)
        assert report.took_s <= WITHIN_S + 1.0
        assert (report.verdict.remedy != "") is (report.verdict.cause is not Cause.NONE)
        return report

    async def names(self, cause: Cause, peer: PeerId | None = None, here: Here = HERE) -> None:
        """Its verdict is this cause, of that peer."""
        report = await self.examined(here)
        verdict = report.verdict
        assert (verdict.cause, verdict.peer) == (cause, peer), f"{verdict} {report.chain}"

    def line(self, node: LabNode, **line: float) -> None:
        """Between that node and everybody else."""
        others = {each.peer for each in self.swarm.nodes} | set(self.swarm.client_peers)
        for other in others - {node.peer}:
            self.swarm.network.set_line(node.peer, other, Line(**line))

    def later(self, seconds: float, happens: Callable[[LabNode], None], node: LabNode) -> None:
        asyncio.get_running_loop().call_later(seconds, happens, node)


# --- none


async def test_a_healthy_swarm_has_none_and_its_figures_are_right(tiny: Path, cache: Path) -> None:
    async with staged(tiny, cache) as stage:
        report = await stage.examined()
    assert report.verdict.cause is Cause.NONE, report.verdict
    assert report.chain is not None
    assert report.chain.token_s == pytest.approx(3 * 0.02 + 3 * COMPUTE_S)
    for hop, node in zip(report.chain.hops, stage.nodes, strict=True):
        assert (hop.peer, hop.layers) == (node.peer, node.layers)
        assert hop.ways.median_s == pytest.approx(0.04)
        assert hop.way_s == pytest.approx(0.02)
        assert hop.compute_s == pytest.approx(COMPUTE_S)
        assert hop.queue_s == pytest.approx(0.0)
    assert [check.grade for check in report.checks if check.name != "nat"] == [Grade.OK] * 11
    assert [told.liveness for told in report.peers] == ["alive"] * 3


async def test_peers_that_merely_differ_are_no_cause(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=0.02) as swarm:
        kinds = (("0-2", 0.01), ("0-2", 0.02), ("3-5", 0.025), ("3-5", 0.03), ("6-8", 0.012))
        nodes = [
            swarm.add(LayerRange.parse(layers), latency_s=s, compute_s=s) for layers, s in kinds
        ]
        for node in nodes:
            await node.is_serving.wait()
        stage = Staged(swarm, nodes, swarm.guest())
        for index, node in enumerate(nodes):
            stage.line(node, latency_s=0.01 + 0.02 * index, jitter_s=0.005 * index)
        await stage.names(Cause.NONE)


async def test_one_noisy_moment_is_no_cause(tiny: Path, cache: Path) -> None:
    async with staged(tiny, cache) as stage:
        stage.later(1.5, stage.swarm.freeze, stage.nodes[1])
        stage.later(2.2, stage.swarm.thaw, stage.nodes[1])
        await stage.names(Cause.NONE)


# --- what fails


@pytest.mark.parametrize("at_s", [-1.0, 1.5])
@pytest.mark.parametrize("how", ["kill", "freeze", "corrupt"])
async def test_a_peer_that_dies_hangs_or_sends_garbage(
    how: str, at_s: float, tiny: Path, cache: Path
) -> None:
    async with staged(tiny, cache) as stage:
        victim = stage.nodes[1]

        def happens(node: LabNode) -> None:
            if how == "corrupt":
                node.conditions.is_corrupt = True
            else:
                getattr(stage.swarm, how)(node)

        if at_s < 0:
            happens(victim)
        else:
            stage.later(at_s, happens, victim)
        await stage.names(Cause.NODE_FAILING, victim.peer)


async def test_a_peer_that_runs_out_of_memory(tiny: Path, cache: Path) -> None:
    async with staged(tiny, cache) as stage:
        stage.nodes[2].conditions.oom_steps = 100
        await stage.names(Cause.MEMORY_PRESSURE, stage.nodes[2].peer)


async def test_memory_of_this_machine(tiny: Path, cache: Path) -> None:
    full = replace(HERE, memory_free_bytes=100 << 20, swap_bytes_per_s=1e8)
    async with staged(tiny, cache) as stage:
        await stage.names(Cause.MEMORY_PRESSURE, here=full)


async def test_layers_that_nobody_serves(tiny: Path, cache: Path) -> None:
    async with staged(tiny, cache, "0-2", "6-8") as stage:
        report = await stage.examined()
    assert (report.verdict.cause, report.verdict.peer) == (Cause.DISCOVERY, None)
    assert "3-5" in report.verdict.evidence


async def test_a_directory_that_answers_slowly(tiny: Path, cache: Path) -> None:
    async with staged(tiny, cache) as stage:
        stage.swarm.dht.latency_s = 4.5
        await stage.names(Cause.DISCOVERY)


async def test_no_room_for_another_session(tiny: Path, cache: Path) -> None:
    async with staged(tiny, cache, config={"max_sessions": 1}) as stage:
        async with stage.swarm.client() as client, Tasks() as tasks:
            tasks.start(client.generate([1, 2, 3], max_tokens=500), name="other")
            await asyncio.sleep(2.0)
            report = await stage.examined()
        assert report.verdict.cause is Cause.OVERLOADED, report.verdict


class BrokenNetwork:
    """Nobody answers."""

    @asynccontextmanager
    async def join(self) -> AsyncIterator[Joined]:
        tried = (PeerTimeout(peer("A"), "no answer in 3 s"), PeerLost(peer("B"), "refused"))
        raise JoinFailed("no node given with --join answered", tried)
        yield


class SilentNetwork:
    """Joining takes for ever."""

    @asynccontextmanager
    async def join(self) -> AsyncIterator[Joined]:
        joined: Joined = await asyncio.get_running_loop().create_future()
        yield joined


async def test_no_swarm_at_all_and_each_bootstrap_peer_with_its_reason() -> None:
    asked = Asked(
        look=lambda: iter([HERE]),
        candidates=lambda: {peer(name): () for name in "ABC"},
        wall_clock=asyncio.get_running_loop().time,
    )
    report = await examine(BrokenNetwork(), asked)
    assert report.verdict.cause is Cause.DISCOVERY
    said = [check.evidence for check in report.checks if check.name == "bootstrap"]
    assert ["no answer in 3 s" in said[0], "refused" in said[1], said[2]] == [
        True,
        True,
        "no answer",
    ]
    report = await examine(SilentNetwork(), asked)
    assert report.verdict.cause is Cause.DISCOVERY
    assert report.took_s < 6.0


# --- what is slow


async def test_a_device_that_has_become_slow(tiny: Path, cache: Path) -> None:
    async with staged(tiny, cache) as stage:
        stage.nodes[1].conditions.slow_factor = 2 * SLOW_FACTOR
        await stage.names(Cause.SLOW_DEVICE, stage.nodes[1].peer)


async def test_a_device_so_slow_that_not_one_token_comes_in_time(tiny: Path, cache: Path) -> None:
    async with staged(tiny, cache) as stage:
        stage.nodes[1].conditions.slow_factor = 300.0
        await stage.names(Cause.SLOW_DEVICE, stage.nodes[1].peer)


async def test_a_device_that_others_keep_busy(tiny: Path, cache: Path) -> None:
    async with staged(tiny, cache) as stage:
        stage.nodes[1].conditions.token_s = 0.03
        async with Tasks() as tasks, stage.swarm.client() as client:
            for number in range(4):
                others = client.generate([1, 2, 3 + number], max_tokens=60)
                tasks.start(others, name="other")
            await asyncio.sleep(4.0)
            await stage.names(Cause.OVERLOADED, stage.nodes[1].peer)


async def test_a_peer_that_is_far_away(tiny: Path, cache: Path) -> None:
    async with staged(tiny, cache) as stage:
        stage.line(stage.nodes[1], latency_s=0.3)
        await stage.names(Cause.NETWORK, stage.nodes[1].peer)


async def test_two_peers_that_are_far_from_each_other_only(tiny: Path, cache: Path) -> None:
    async with staged(tiny, cache) as stage:
        first, second, _ = stage.nodes
        stage.swarm.network.set_line(first.peer, second.peer, Line(latency_s=0.4))
        await stage.names(Cause.NETWORK, second.peer)


async def test_a_line_that_loses(tiny: Path, cache: Path) -> None:
    async with staged(tiny, cache) as stage:
        stage.line(stage.nodes[2], latency_s=0.02, loss=0.15)
        await stage.names(Cause.NETWORK, stage.nodes[2].peer)


async def test_a_link_that_is_too_thin(tiny: Path, cache: Path) -> None:
    async with staged(tiny, cache) as stage:
        first, second, _ = stage.nodes
        for node in stage.nodes:
            stage.line(node, latency_s=0.002)
        # Thinner, and what opens its window would starve the heartbeats.
        thin = Line(latency_s=0.002, bytes_per_s=60_000)
        stage.swarm.network.set_one_way(first.peer, second.peer, thin)
        await stage.names(Cause.THIN_LINK, first.peer)


async def test_a_split_that_is_too_fine(tiny: Path, cache: Path) -> None:
    ranges = ("0-1", "2-3", "4-5", "6-6", "7-7", "8-8")
    async with staged(tiny, cache, *ranges, compute_s=0.001) as stage:
        await stage.names(Cause.SPLIT_TOO_FINE)
