"""Ten thousand digests per second from one peer: what they cost, and who is still heard."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import pytest

from p2pnode.errors import PeerLost, PeerMisbehaved
from p2pnode.gossip.digest import seal_digest
from p2pnode.gossip.messages import Sync
from p2pnode.net.link import Link
from p2pnode.net.memory import fake_identity
from p2pnode.net.transport import ByteStream, Sink
from p2pnode.types import Health
from p2pnode.wire.frames import frames
from p2pnode.wire.messages import CONTROL, Hello
from tests.gossip.swarm import EPOCH_S, GossipSwarm, Participant, until

pytestmark = pytest.mark.virtual_time

RATE_PER_S = 10_000
SECONDS = 4
MALLORY = fake_identity(666)
"""Signs all its digests, and each is newer than the one before."""


def hello() -> bytes:
    greeting = Hello(version=1, software="flood/1", nonce=b"n" * 16, credentials=b"")
    return b"".join(frames(greeting, 1))


def flood(per_message: int, count: int = RATE_PER_S) -> list[bytes]:
    """Messages that hold so many digests together."""
    digests = [
        seal_digest(
            Health(peer=MALLORY.peer, sequence=number + 1, issued_at=EPOCH_S), MALLORY.sign
        ).data
        for number in range(count)
    ]
    return [
        b"".join(
            frames(
                Sync(
                    turn=3,
                    is_whole=False,
                    held=b"",
                    place=b"",
                    digests=tuple(digests[at : at + per_message]),
                    suspicions=(),
                ),
                2,
            )
        )
        for at in range(0, count, per_message)
    ]


class ScriptedStream:
    """A `ByteStream` on which everything has come already."""

    peer = MALLORY.peer

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    async def read_exactly(self, num_bytes: int) -> bytes:
        """Never waits."""
        if self._at + num_bytes > len(self._data):
            raise PeerLost(self.peer, "the stream ended")
        self._at += num_bytes
        return bytes(self._data[self._at - num_bytes : self._at])

    async def receive(self, sink: Sink) -> None:
        """All of it at once."""
        while self._at < len(self._data):
            buffer = sink.buffer()
            size = min(len(buffer), len(self._data) - self._at)
            buffer[:size] = await self.read_exactly(size)
            sink.filled(size)
        raise PeerLost(self.peer, "the stream ended")

    def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Nobody reads."""

    async def drain(self) -> None:
        """Never waits."""

    def close(self) -> None:
        """Nothing to do."""


@pytest.mark.parametrize("per_message", [1, 40])
async def test_ten_thousand_digests_cost_a_small_part_of_a_second(per_message: int) -> None:
    async with GossipSwarm() as swarm:
        swarm.start(1)
        await asyncio.sleep(1)
        (node,) = swarm.nodes
        script = b"".join(flood(per_message))
        began = time.thread_time()
        link = Link(ScriptedStream(script), CONTROL, node.gossip)
        await link.run()
        assert time.thread_time() - began < 0.3
        assert isinstance(link.error, PeerMisbehaved)


async def test_a_flooder_is_cut_off_and_honest_health_is_seen_within_two_periods() -> None:
    async with GossipSwarm() as swarm:
        swarm.start(3)
        await swarm.until_all_known()
        await asyncio.sleep(3)
        victim, honest, _ = swarm.nodes
        async with swarm.network.transport(MALLORY.peer) as transport, asyncio.TaskGroup() as tasks:
            task = tasks.create_task(_attack(swarm, transport, victim))
            await asyncio.sleep(1)
            honest.health = dataclasses.replace(honest.health, num_sessions=3)
            assert await until(lambda: _sessions(victim, honest) == 3) < 2.0
            num_streams = await task
        assert num_streams > 20, "it came back again and again"
        assert victim.gossip.rtt_s(honest.peer) is not None
        assert [each.health.peer for _, _, each in victim.changes] == []


def _sessions(node: Participant, other: Participant) -> int | None:
    seen = node.sees(other)
    return seen.health.num_sessions if seen else None


async def _attack(swarm: GossipSwarm, transport: object, victim: Participant) -> int:
    """Write at the rate, on a new stream whenever one is ended; how many there were."""
    messages = flood(1, 2_000)
    there = swarm.network.transports[victim.peer]
    loop = asyncio.get_running_loop()
    until_s, num_streams = loop.time() + SECONDS, 0
    while loop.time() < until_s:
        await transport.connect(victim.peer, there.addresses)  # type: ignore[attr-defined]
        stream: ByteStream = await transport.open_stream(victim.peer, CONTROL)  # type: ignore[attr-defined]
        num_streams += 1
        try:
            stream.write(hello())
            for start in range(0, len(messages), 100):
                for message in messages[start : start + 100]:
                    stream.write(message)
                await asyncio.sleep(100 / RATE_PER_S)
        except PeerLost:
            continue
        finally:
            stream.close()
    return num_streams
