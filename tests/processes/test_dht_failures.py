"""The directory on real p2pd processes: bootstrap peers that are gone, islands, dying daemons."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from p2pnode.dht.calls import CALL_TIMEOUT_S
from p2pnode.errors import JoinFailed, PeerError
from p2pnode.swarm.join import Joiner
from p2pnode.swarm.sources import JoinSources
from tests.processes.dht_cluster import Node, cluster, seen_by

NOTICED_WITHIN_S = 10.0

pytestmark = pytest.mark.processes


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    return tmp_path


async def test_a_dead_or_frozen_bootstrap_peer_beside_a_living_one_is_no_obstacle(
    folder: Path,
) -> None:
    async with cluster(folder) as start:
        living, frozen, dead = [await start.node() for _ in range(3)]
        addresses = [node.transport.addresses for node in (dead, frozen, living)]
        os.kill(frozen.transport.daemon_pid, signal.SIGSTOP)
        os.kill(dead.transport.daemon_pid, signal.SIGKILL)
        try:
            newcomer = await start.node()
            joiner = joiner_of(newcomer, folder, *(each for some in addresses for each in some))
            started_at = time.monotonic()
            assert await joiner.join(may_found=False)
            took_s = time.monotonic() - started_at
            assert newcomer.directory.peers == (living.peer,)
            assert took_s < 3.0
            alone = joiner_of(await start.node(), folder, *frozen.transport.addresses)
            started_at = time.monotonic()
            with pytest.raises(JoinFailed, match="--join"):
                await alone.join(may_found=True)
            assert time.monotonic() - started_at < 3.5
        finally:
            os.kill(frozen.transport.daemon_pid, signal.SIGCONT)


def joiner_of(node: Node, home: Path, *explicit: str, public: tuple[str, ...] = ()) -> Joiner:
    sources = JoinSources(home=home, explicit=explicit, public=public)
    return Joiner(node.directory, sources, own=node.peer, wall_clock=time.time)


async def test_islands_that_meet_become_one_swarm(folder: Path) -> None:
    async with cluster(folder) as start:
        west = await start.node()
        west_friend = await start.node(west)
        east = await start.node()
        east_friend = await start.node(east)
        islanders = [west, west_friend, east, east_friend]
        for node in islanders:
            await node.directory.publish(node.announcement())
        assert await seen_by(west_friend) == {west.peer, west_friend.peer}

        merged = asyncio.Event()
        sources = JoinSources(home=folder / "west", public=east.transport.addresses)
        joiner = Joiner(
            west.directory, sources, own=west.peer, wall_clock=time.time, met=merged.set
        )
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            task = group.create_task(joiner.run())
            await merged.wait()
            task.cancel()
        for node in islanders:
            assert await seen_by(node) == {each.peer for each in islanders}


async def test_a_swarm_outlives_its_bootstrap_peer(folder: Path) -> None:
    async with cluster(folder) as start:
        bootstrap = await start.node()
        one, two = [await start.node(bootstrap) for _ in range(2)]
        joiner = joiner_of(two, folder, *bootstrap.transport.addresses)
        assert await joiner.join(may_found=False), "and saves the last good peers"
        for node in (one, two):
            await node.directory.publish(node.announcement())
        os.kill(bootstrap.transport.daemon_pid, signal.SIGKILL)
        await hung_up(two, bootstrap)

        started_at = time.monotonic()
        assert await seen_by(two) == {one.peer, two.peer}
        waited_s = time.monotonic() - started_at
        assert waited_s < CALL_TIMEOUT_S / 2, "a dead peer is not waited for"

        newcomer = await start.node()
        rejoining = joiner_of(newcomer, folder, public=bootstrap.transport.addresses)
        assert await rejoining.join(may_found=False), "through the last good peers"
        assert await seen_by(newcomer) == {one.peer, two.peer}
        with pytest.raises(PeerError):
            await newcomer.directory.meet(bootstrap.peer, bootstrap.transport.addresses)


async def hung_up(node: Node, dead: Node) -> None:
    """Until a node's daemon has noticed: a call before that finds a connection, and not its end."""
    async with asyncio.timeout(NOTICED_WITHIN_S):
        while dead.peer in await node.transport.observed():
            pass


async def test_a_client_that_is_cut_off_is_told_so(folder: Path) -> None:
    async with cluster(folder) as start:
        node = await start.node()
        client = await start.node(node, is_client=True)
        os.kill(node.transport.daemon_pid, signal.SIGKILL)
        with pytest.raises(JoinFailed, match="no peer of the swarm answers"):
            await client.directory.announcements()
        with pytest.raises(JoinFailed, match="none of"):
            await client.directory.publish(client.announcement())


async def test_the_death_of_our_own_daemon_ends_every_wait(folder: Path) -> None:
    async with cluster(folder) as start:
        friend = await start.node()
        node = await start.node(friend)
        os.kill(node.transport.daemon_pid, signal.SIGKILL)
        started_at = time.monotonic()
        assert await seen_by(node) == set()
        with contextlib.suppress(JoinFailed):
            await node.directory.publish(node.announcement())
        assert time.monotonic() - started_at < 3.0
