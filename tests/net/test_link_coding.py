"""Hidden states on links: coded where that was agreed, or where the link is slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from p2pnode.errors import PeerError, PeerLost, PeerMisbehaved
from p2pnode.net.link import Link
from p2pnode.net.links import Links
from p2pnode.net.memory import Line, MemoryNetwork, fake_peer_id
from p2pnode.numerics import INT8
from p2pnode.types import Tensor
from p2pnode.wire.coding import recoded
from p2pnode.wire.messages import Step
from p2pnode.wire.padding import PADDING_BYTES

pytestmark = pytest.mark.virtual_time

NEAR, FAR = fake_peer_id(0), fake_peer_id(1)
MBIT = 125_000


def step(rows: int, dtype: str = "bfloat16") -> Step:
    values = np.random.default_rng(rows).normal(size=rows * 512).astype("<f4").view("<u4")
    data = values.tobytes() if dtype == "float32" else (values >> 16).astype("<u2").tobytes()
    entry = Tensor(dtype, (rows, 512), data)
    return Step(session=b"s" * 16, layer=0, epoch=0, position=0, entry=entry)


class Keeper:
    """Keeps what comes, and when."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[tuple[float, Any]] = asyncio.Queue()

    def on_message(self, link: Link, message: Any) -> None:
        self.came.put_nowait((asyncio.get_running_loop().time(), message))

    def on_lost(self, link: Link, error: PeerError) -> None:
        self.came.put_nowait((asyncio.get_running_loop().time(), error))


@asynccontextmanager
async def two(
    line: Line, lossy: tuple[str, str] = ("", ""), up_bytes_per_s: float = 0.0
) -> AsyncIterator[tuple[Link, Keeper]]:
    """A link, and what comes out at its other end."""
    network, keeper = MemoryNetwork(line=line), Keeper()

    def links(transport: Any, lossy: str) -> Links:
        return Links(
            transport,
            keeper,
            software="test/1",
            connect_timeout_s=3.0,
            heartbeat=(5.0, 20.0),
            lossy=lossy,
            up_bytes_per_s=up_bytes_per_s,
        )

    async with network.transport(NEAR) as one, network.transport(FAR) as other:
        async with links(one, lossy[0]) as near, links(other, lossy[1]) as far:
            await far.serve()
            yield await near.connect(FAR, other.addresses), keeper


async def sent(link: Link, keeper: Keeper, message: Step) -> tuple[float, Any]:
    """How long a message took, and what became of it."""
    began = asyncio.get_running_loop().time()
    link.send(message)
    at, received = await keeper.came.get()
    return at - began, received


@pytest.mark.parametrize("rows", [1, 400])
async def test_both_sides_of_a_lossy_class_code_and_decode(rows: int) -> None:
    async with two(Line(latency_s=0.01), (INT8, INT8)) as (link, keeper):
        _, message = await sent(link, keeper, step(rows))
        assert bytes(message.entry.data) == bytes(recoded(step(rows).entry, INT8).data)


async def test_a_client_agrees_when_it_asks_for_a_place() -> None:
    async with two(Line(latency_s=0.01), ("", INT8)) as (link, keeper):
        link.agree_on(INT8)
        _, message = await sent(link, keeper, step(3))
        assert bytes(message.entry.data) != bytes(step(3).entry.data)


async def test_who_codes_with_loss_unasked_misbehaves() -> None:
    async with two(Line(latency_s=0.01), (INT8, "")) as (link, keeper):
        _, error = await sent(link, keeper, step(3))
        assert isinstance(error, PeerMisbehaved)
        assert "with loss" in str(error)


async def test_a_coding_that_nobody_knows_is_none() -> None:
    async with two(Line(latency_s=0.01), ("int7", "int7")) as (link, keeper):
        assert (await sent(link, keeper, step(3)))[1] == step(3)


@pytest.mark.parametrize(("dtype", "share"), [("bfloat16", 0.72), ("float32", 1.0)])
async def test_a_thin_link_is_spared_a_third_and_nothing_is_lost(dtype: str, share: float) -> None:
    times, line = [], Line(latency_s=0.0, bytes_per_s=10 * MBIT)
    for announced in (0.0, 10 * MBIT):
        async with two(line, up_bytes_per_s=announced) as (link, keeper):
            taken_s, message = await sent(link, keeper, step(256, dtype))
            assert message == step(256, dtype)
            times.append(taken_s)
    assert times[1] / times[0] == pytest.approx(share, abs=0.06)
    assert times[1] <= share * times[0] * 1.01


async def test_a_link_that_nobody_knew_to_be_thin_is_found_out() -> None:
    async with two(Line(latency_s=0.0, bytes_per_s=10 * MBIT)) as (link, keeper):
        assert link.uplink.bytes_per_s == 0
        first_s, _ = await sent(link, keeper, step(4000))
        assert link.uplink.bytes_per_s == pytest.approx(10 * MBIT, rel=0.2)
        again_s, _ = await sent(link, keeper, step(4000))
        assert again_s < 0.72 * first_s


async def test_a_fast_link_is_left_alone() -> None:
    async with two(Line(latency_s=0.01), up_bytes_per_s=1000 * MBIT) as (link, keeper):
        assert (await sent(link, keeper, step(3)))[1] == step(3)


@pytest.mark.parametrize("pads", [False, True])
async def test_a_node_fills_the_window_when_it_opens_a_chain_link_and_nobody_is_told(
    pads: bool,
) -> None:
    network, keeper = MemoryNetwork(line=Line(latency_s=0.0, bytes_per_s=10 * MBIT)), Keeper()
    options: Any = {"software": "test/1", "connect_timeout_s": 3.0, "heartbeat": (5.0, 20.0)}
    async with network.transport(NEAR) as one, network.transport(FAR) as other:
        async with (
            Links(one, keeper, pads=pads, **options) as near,
            Links(other, keeper, **options) as far,
        ):
            await far.serve()
            link = await near.connect(FAR, other.addresses)
            taken_s, message = await sent(link, keeper, step(1))
            assert message == step(1)
            assert (taken_s > PADDING_BYTES / (10 * MBIT)) is pads
            assert keeper.came.empty()


async def test_a_link_that_comes_while_we_close_is_refused_and_no_bug() -> None:
    network, keeper = MemoryNetwork(line=Line(latency_s=0.01)), Keeper()
    options: Any = {"software": "test/1", "connect_timeout_s": 3.0, "heartbeat": (5.0, 20.0)}
    async with network.transport(NEAR) as one, network.transport(FAR) as other:
        async with Links(one, keeper, **options) as near:
            async with Links(other, keeper, **options) as far:
                await far.serve()
            await near.connect(FAR, other.addresses)
            _, error = await keeper.came.get()
            assert isinstance(error, PeerLost)
