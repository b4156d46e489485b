"""Who looks on sees what gossip tells, asks nothing of anybody, and leaves when told."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from p2pnode.cli.top_face import pictures
from p2pnode.config import ClientConfig
from p2pnode.lab.member import LabMember
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.net.memory import fake_identity
from p2pnode.swarm.watch import watching
from p2pnode.types import Liveness

pytestmark = pytest.mark.virtual_time


async def test_gossip_tells_of_everybody_and_of_a_death_within_seconds(
    tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01) as swarm:
        first, second = await swarm.start("0-4", "5-8")
        config = ClientConfig(cache=cache, wall_clock=swarm.wall_clock)
        async with watching(LabMember(swarm, fake_identity(90)), config) as watch:
            view = await watch.settled(10.0)
            assert set(view.health) == {first.peer, second.peer}
            trip_s = watch.rtt_s(first.peer)
            assert trip_s is not None
            assert trip_s == pytest.approx(0.02, rel=0.2)

            swarm.kill(second)
            async with asyncio.timeout(5.0):
                while view.health[second.peer].liveness is not Liveness.DEAD:
                    view = await watch.next(1.0)


async def test_top_tells_scripts_of_each_change_and_of_nothing_else(
    tiny: Path, cache: Path
) -> None:
    async with LocalSwarm(tiny, cache=cache, latency_s=0.01) as swarm:
        await swarm.start("0-8")
        config = ClientConfig(cache=cache, wall_clock=swarm.wall_clock)
        async with watching(LabMember(swarm, fake_identity(90)), config) as watch:
            async with aclosing(pictures(watch, config)) as told:
                first = await anext(told)
                assert [each["layers"] for each in first["peers"]] == ["0-8"]
                assert first["peers"][0]["age_s"] >= 0
                await swarm.start("3-5")
                async with asyncio.timeout(10.0):
                    async for each in told:
                        if each["num_peers"] == 2:
                            break


async def test_who_waits_can_be_woken(tiny: Path, cache: Path) -> None:
    async with LocalSwarm(tiny, cache=cache) as swarm:
        await swarm.start("0-8")
        config = ClientConfig(cache=cache, wall_clock=swarm.wall_clock)
        async with watching(LabMember(swarm, fake_identity(90)), config) as watch:
            clock = asyncio.get_running_loop().time
            began = clock()
            watch.wake()
            await watch.next(60.0)
            assert clock() - began < 1.0
