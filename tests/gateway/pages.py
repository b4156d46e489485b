"""Gateways with a status page on real ports, and a browser that looks at them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from re import Pattern
from types import TracebackType
from typing import Any, Self, TypeVar

import pytest
import uvloop
from fastapi import FastAPI
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from p2pnode.gateway.app import make_app
from p2pnode.gateway.feed import Feed, GatewaySource, Source
from p2pnode.gateway.gateway import Gateway
from p2pnode.gateway.server import listening
from p2pnode.gateway.settings import GatewaySettings
from p2pnode.lab.swarm import LocalSwarm
from p2pnode.tasks import Tasks

T = TypeVar("T")

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 832}
LATENCY_S = 0.005


@asynccontextmanager
async def scene_app(source: Source, keys_file: Path | None = None) -> AsyncIterator[FastAPI]:
    """A page that tells what the source does; its gateway is in no swarm."""
    feed = Feed(source)
    async with Tasks() as tasks:
        tasks.start(feed.run(), name="feed")
        yield make_app(Gateway(GatewaySettings(keys_file=keys_file)), feed)


class SwarmApp:
    """The page of a gateway on a swarm in memory, in real time."""

    swarm: LocalSwarm

    def __init__(self, folder: Path, cache: Path, *ranges: str) -> None:
        self._folder = folder
        self._cache = cache
        self._ranges = ranges

    @asynccontextmanager
    async def open(self) -> AsyncIterator[FastAPI]:
        """The app, while all of it runs."""
        async with LocalSwarm(
            self._folder,
            cache=self._cache,
            latency_s=LATENCY_S,
            config={"gossip_neighbours": 24},
        ) as self.swarm:
            await self.swarm.start(*self._ranges)
            async with self.swarm.client() as client, Tasks() as tasks:
                gateway = Gateway(GatewaySettings(), client)
                feed = Feed(GatewaySource(gateway))
                tasks.start(feed.run(), name="feed")
                yield make_app(gateway, feed)


class Serving:
    """Serves an app on 127.0.0.1, on a loop of its own: the browser's calls block this thread."""

    def __init__(self, app: AbstractAsyncContextManager[FastAPI], port: int = 0) -> None:
        self._app = app
        self._port = port
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gateway")
        self._ready: Future[str] = Future()
        self._ended: Future[None]
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event
        self.url = ""

    def __enter__(self) -> Self:
        self._ended = self._thread.submit(self._run)
        either: list[Future[Any]] = [self._ended, self._ready]
        wait(either, return_when=FIRST_COMPLETED)
        if not self._ready.done():
            self._ended.result()  # it has failed: raises that
        self.url = self._ready.result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.shutdown()
        self._ended.result()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with self._app as app, listening(app, "127.0.0.1", self._port) as url:
            self._ready.set_result(url)
            await self._end.wait()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's; playwright would fetch its own."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("no browser: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


class Looking:
    """One tab, and what it has complained about."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self._context = browser.new_context(**{"viewport": DESKTOP, **options})
        self.complaints: list[str] = []
        self.page: Page = self._context.new_page()
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._context.close()

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def wait_live(self) -> None:
        """Return when the feed has told the swarm."""
        self.page.wait_for_selector('#live[data-state="live"]')
        self.wait_text("#software", "p2pnode")

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def wait_text(self, selector: str, text: str | Pattern[str], within_s: float = 60.0) -> None:
        """Return when an element says that."""
        self.page.locator(selector, has_text=text).first.wait_for(timeout=1000 * within_s)
