"""Conditions: the product's own code under what the lab does to it."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
import torch

from p2pnode.errors import WireError
from p2pnode.lab.conditions import Conditions, LabBlock, LabStream, LabTransport
from p2pnode.lab.reference import whole_block
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.model.block import Work
from p2pnode.net.memory import MemoryNetwork, fake_peer_id
from p2pnode.net.transport import ByteStream, Sink
from p2pnode.types import LayerRange, Tensor
from p2pnode.wire.frames import PREFIX, Assembler, Prefix, frames
from p2pnode.wire.messages import Ping, Step
from tests.support.models import greedy

PROMPT = [1, 403, 407, 261, 378, 31, 76, 99]

pytestmark = pytest.mark.virtual_time


async def lab_block(tiny: Path, cache: Path, conditions: Conditions) -> LabBlock:
    async with LocalSwarm(tiny, cache=cache) as swarm:
        node = swarm.add(LayerRange(0, 9))
        await node.is_serving.wait()
        conditions.use(asyncio.get_running_loop())

        return LabBlock(whole_block(swarm.folder, swarm.spec, "float32"), conditions)


async def test_compute_time_passes_on_the_loops_clock_and_the_text_is_the_same(
    tiny: Path, cache: Path
) -> None:
    took: list[float] = []
    for compute_s in (0.0, 0.02):
        async with LocalSwarm(tiny, cache=cache, latency_s=0.01) as swarm:
            nodes = [swarm.add(LayerRange(a, a + 3), compute_s=compute_s) for a in (0, 3, 6)]
            for node in nodes:
                await node.is_serving.wait()
            async with swarm.client() as client:
                done = await client.generate(PROMPT, max_tokens=11)
        assert list(done.token_ids) == greedy(tiny, PROMPT, 11)
        took.append(1 / done.tokens_per_s)
    assert took[1] - took[0] == pytest.approx(3 * 0.02)


async def test_a_block_out_of_memory_fails_so_often_and_recovers(tiny: Path, cache: Path) -> None:
    conditions = Conditions(oom_steps=2)
    block = (await lab_block(tiny, cache, conditions)).part(LayerRange(0, 3))
    work = [Work(cache=block.new_cache(8), position=0, entry=torch.tensor(PROMPT))]
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            block.forward(work)
    (hidden,) = block.forward(work)
    assert hidden.shape == (8, 32)
    assert block.part(LayerRange(0, 3)) is block


async def test_who_watches_is_told_before_the_forward_computes(tiny: Path, cache: Path) -> None:
    conditions = Conditions()
    block = await lab_block(tiny, cache, conditions)
    told: list[str] = []

    def take_memory() -> None:
        told.append("begins")
        conditions.oom_steps = 1

    conditions.watch(take_memory)
    work = [Work(cache=block.new_cache(8), position=0, entry=torch.tensor(PROMPT))]
    loop = asyncio.get_running_loop()
    with pytest.raises(torch.OutOfMemoryError):
        await loop.run_in_executor(None, block.forward, work)
    await loop.run_in_executor(None, block.forward, work)
    assert told == ["begins"]


class FakeStream:
    """Keeps what is written."""

    peer = fake_peer_id(1)

    def __init__(self) -> None:
        self.written: list[bytes] = []

    async def read_exactly(self, num_bytes: int) -> bytes:
        return b"\0" * num_bytes

    async def receive(self, sink: Sink) -> None:
        pass

    def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        self.written += map(bytes, pieces)

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        pass


def pieces() -> list[bytes | memoryview]:
    """A small message, one with a tensor, and one of several frames."""
    made: list[bytes | memoryview] = list(frames(Ping(number=1), 1))
    for channel, tokens in ((2, 1), (3, 5000)):
        data = (bytes(range(256)) * (tokens * 8 // 256 + 1))[: tokens * 8]
        entry = Tensor("int64", (tokens,), data)
        step = Step(session=b"s" * 16, layer=0, epoch=1, position=0, entry=entry)
        made += frames(step, channel)
    return made


def test_a_corrupt_sender_breaks_every_frame_and_nothing_within() -> None:
    conditions, fake = Conditions(), FakeStream()
    stream: ByteStream = LabStream(fake, conditions)
    sent = pieces()
    for piece in sent:
        stream.write(piece)
    assert fake.written == [bytes(piece) for piece in sent]
    fake.written.clear()
    conditions.is_corrupt = True
    for piece in sent:
        stream.write(piece)
    is_body = False
    for before, after in zip(sent, fake.written, strict=True):
        differing = [
            index for index, (a, b) in enumerate(zip(before, after, strict=True)) if a != b
        ]
        if is_body:
            assert differing == []
            is_body = False
        else:
            assert len(differing) == 1
            assert differing[0] in (0, 1, 2, 3, 8, 9, 10)
            length, *_ = PREFIX.unpack(bytes(before[: PREFIX.size]))
            is_body = PREFIX.size + length > len(before)


def test_a_receiver_notices_a_broken_frame_or_waits_for_more() -> None:
    noticed = 0
    for seed, piece in itertools.product(range(50), frames(Ping(number=1), 1)):
        conditions, fake = Conditions(is_corrupt=True), FakeStream()
        conditions.rng.seed(seed)
        LabStream(fake, conditions).write(piece)
        (data,) = fake.written
        try:
            prefix = Prefix.parse(data[: PREFIX.size])
            rest = data[PREFIX.size :]
            message = None
            if prefix.num_bytes <= len(rest):
                message = Assembler().add(prefix, rest[: prefix.num_bytes])
            assert message is None
        except WireError:
            noticed += 1
    assert noticed > 25


async def test_a_lab_transport_is_a_transport() -> None:
    network = MemoryNetwork()
    ours, theirs = fake_peer_id(1), fake_peer_id(2)
    async with network.transport(ours) as near, network.transport(theirs) as far:
        lab = LabTransport(near, Conditions())
        echoed = asyncio.Event()

        async def echo(stream: ByteStream) -> None:
            stream.write(await stream.read_exactly(3))
            await stream.drain()
            echoed.set()

        await LabTransport(far, Conditions()).serve("/echo", echo)
        await lab.connect(theirs, far.addresses)
        stream = await lab.open_stream(theirs, "/echo")
        stream.write(b"abc")
        assert await stream.read_exactly(3) == b"abc"
        await echoed.wait()
        stream.close()
        assert (lab.peer, stream.peer, lab.addresses) == (ours, theirs, near.addresses)
