"""The feed of the status page: made once for all viewers, and only while there are any."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from p2pnode.errors import JoinFailed
from p2pnode.gateway.feed import CALM_S, TICK_S, Feed
from p2pnode.tasks import Tasks
from p2pnode.types import Liveness
from tests.gateway.scenes import SceneSource, gone, run, scene

pytestmark = pytest.mark.virtual_time


class CountingSource(SceneSource):
    """Counts how often it is asked."""

    num_asked = 0
    num_read = 0

    def swarm(self) -> dict[str, Any]:
        """See `Source.swarm`."""
        self.num_asked += 1
        return super().swarm()

    async def read(self, *, max_age_s: float) -> None:
        """See `Source.read`; the swarm is never found."""
        self.num_read += 1
        raise JoinFailed("nobody answers")


def counting(*ranges: str) -> CountingSource:
    like = scene(*ranges)
    return CountingSource(announcements=like.announcements, health=like.health)


class Viewer:
    """Reads a feed like a page does."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        self._events = events

    async def next(self, kind: str) -> tuple[dict[str, Any], float]:
        """The next event of that kind, and when it came."""
        async for event in self._events:
            head, _, data = event.partition(b"\ndata: ")
            if head == b"event: " + kind.encode():
                return json.loads(data), asyncio.get_running_loop().time()
        raise AssertionError("the feed has ended")


async def test_a_viewer_is_told_at_once_and_then_what_is_new() -> None:
    source = scene("0-19", "20-39")
    feed = Feed(source)
    async with Tasks() as tasks:
        tasks.start(feed.run(), name="feed")
        async with aclosing(feed.events()) as events:
            viewer = Viewer(events)
            swarm, at = await viewer.next("swarm")
            assert (len(swarm["peers"]), at) == (2, 0.0)
            assert (await viewer.next("requests"))[0] == {"num_tokens": 0, "requests": []}
            source.runs = [run(source, (0, "0-19"), (1, "20-39"))]
            told, at = await viewer.next("requests")
            assert [hop["layers"] for hop in told["requests"][0]["hops"]] == ["0-19", "20-39"]
            assert at <= TICK_S


async def test_a_death_is_told_at_the_next_tick_and_mere_figures_once_per_second() -> None:
    source = scene("0-19", "20-39")
    peer = source.announcements[0].peer
    feed = Feed(source)
    async with Tasks() as tasks:
        tasks.start(feed.run(), name="feed")
        async with aclosing(feed.events()) as events:
            viewer = Viewer(events)
            await viewer.next("swarm")
            source.rtts_s[peer] = 0.5
            told, at = await viewer.next("swarm")
            assert (told["peers"][0]["rtt_s"], at) == (0.5, CALM_S)
            source.health[peer] = gone(peer, Liveness.SUSPECT)
            told, at = await viewer.next("swarm")
            assert told["peers"][0]["health"]["liveness"] == "suspect"
            assert at == CALM_S + TICK_S


async def test_viewers_share_what_is_made() -> None:
    source = counting("0-39")
    feed = Feed(source)
    async with Tasks() as tasks:
        tasks.start(feed.run(), name="feed")
        streams = [feed.events() for _ in range(50)]
        told = {(await anext(stream)) for stream in streams}
        assert len(told) == 1
        await asyncio.sleep(10 * TICK_S)
        assert source.num_asked <= 12
        for stream in streams:
            await stream.aclose()
        assert feed.num_viewers == 0


async def test_without_viewers_nobody_is_asked() -> None:
    source = counting("0-39")
    feed = Feed(source)
    async with Tasks() as tasks:
        tasks.start(feed.run(), name="feed")
        await asyncio.sleep(100)
        assert (source.num_asked, source.num_read) == (0, 0)


async def test_who_comes_later_is_not_told_what_was_then() -> None:
    source = scene("0-39")
    feed = Feed(source)
    async with Tasks() as tasks:
        tasks.start(feed.run(), name="feed")
        async with aclosing(feed.events()) as events:
            await Viewer(events).next("swarm")
        source.announcements.clear()
        await asyncio.sleep(3)
        async with aclosing(feed.events()) as events:
            told, _ = await Viewer(events).next("swarm")
        assert told["peers"] == []


async def test_a_slow_viewer_is_told_the_newest_only() -> None:
    source = scene("0-39")
    feed = Feed(source)
    async with Tasks() as tasks:
        tasks.start(feed.run(), name="feed")
        async with aclosing(feed.events()) as events:
            viewer = Viewer(events)
            await viewer.next("requests")
            for number in range(1, 9):
                source.num_tokens = number
                await asyncio.sleep(TICK_S)
            assert (await viewer.next("requests"))[0]["num_tokens"] == 8


async def test_a_swarm_that_cannot_be_read_is_shown_as_it_was() -> None:
    source = counting("0-39")
    feed = Feed(source)
    async with Tasks() as tasks:
        tasks.start(feed.run(), name="feed")
        async with aclosing(feed.events()) as events:
            viewer = Viewer(events)
            await viewer.next("swarm")
            await asyncio.sleep(5)
            assert source.num_read >= 2
            source.health.clear()
            assert (await viewer.next("swarm"))[0]["peers"][0]["health"] is None
