"""Connections of sessions outlast a crowd: told once, in order, and true for a real daemon."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from p2pnode.errors import DaemonDied
from p2pnode.net.identity import Identity
from p2pnode.net.libp2p_transport import P2PTransport
from p2pnode.net.memory import MemoryNetwork, fake_peer_id
from p2pnode.net.protection import Protection
from p2pnode.types import PeerId

ONE, TWO, THREE = (fake_peer_id(number) for number in range(1, 4))


async def settle() -> None:
    await asyncio.sleep(0.1)


@pytest.mark.virtual_time
async def test_peers_are_protected_while_they_are_wanted() -> None:
    async with (
        MemoryNetwork().transport(fake_peer_id(0)) as transport,
        asyncio.TaskGroup() as group,
    ):
        protection = Protection(transport)
        running = group.create_task(protection.run())
        for wanted in ({ONE, TWO}, {TWO, THREE}, set[PeerId]()):
            protection.set(wanted)
            await settle()
            assert transport.protected == wanted
        protection.set({ONE})
        protection.set(set())
        await settle()
        assert transport.protected == set()
        running.cancel()


class BrokenTransport:
    """A transport whose daemon is gone."""

    def __init__(self) -> None:
        self.asked: list[PeerId] = []

    async def protect(self, peer: PeerId, is_protected: bool) -> None:
        self.asked.append(peer)
        raise DaemonDied("p2pd is gone")


@pytest.mark.virtual_time
async def test_a_daemon_that_does_not_listen_stops_nothing() -> None:
    broken = BrokenTransport()
    async with asyncio.TaskGroup() as group:
        protection = Protection(broken)  # type: ignore[arg-type]
        running = group.create_task(protection.run())
        protection.set({ONE})
        await settle()
        protection.set({ONE, TWO})
        await settle()
        running.cancel()
    assert broken.asked == [ONE, TWO]


async def test_the_daemon_takes_the_word_and_takes_it_back() -> None:
    with tempfile.TemporaryDirectory(prefix="p2p-", dir="/tmp") as folder:
        async with AsyncExitStack() as stack:
            near, far = [
                await stack.enter_async_context(
                    P2PTransport(Identity.ephemeral(), Path(folder), host="127.0.0.1")
                )
                for _ in range(2)
            ]
            await near.connect(far.peer, far.addresses)
            await near.protect(far.peer, True)
            await near.protect(far.peer, False)
            await near.protect(far.peer, False)  # harmless
