"""The client for code without an event loop: the same calls, and they wait.

with p2pnode.BlockingClient() as client:
    for event in client.stream("Once upon a time"):
        ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self

import uvloop

from p2pnode.client.client import Client, Prompt
from p2pnode.client.events import Done, Embedding, Event


class BlockingClient:
    """A `Client` on an event loop of its own, in a thread of its own.

    Takes what `Client` takes; ``with`` joins the swarm and leaves it. Calls may come from any
    thread but the loop's own, several at once.
    """

    def __init__(self, **options: Any) -> None:
        self._client = Client(**options)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="p2pnode-client")
        self._entered: Future[None] = Future()
        self._running: Future[None]
        self._loop: asyncio.AbstractEventLoop
        self._leave: asyncio.Event

    def __enter__(self) -> Self:
        self._running = self._thread.submit(self._run)
        wait([self._entered, self._running], return_when=FIRST_COMPLETED)
        if self._running.done():
            self._thread.shutdown()
            self._running.result()  # raises what joining has raised
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.shutdown()
        self._running.result()

    def generate(self, prompt: Prompt, **options: Any) -> Done:
        """See `Client.generate`."""
        done: Done = self._wait(self._client.generate(prompt, **options))
        return done

    def stream(self, prompt: Prompt, **options: Any) -> Generator[Event, None, None]:
        """See `Client.stream`; leaving the iteration frees every hop."""
        events = self._client.stream(prompt, **options)
        try:
            while (event := self._wait(anext(events, None))) is not None:
                yield event
        finally:
            self._wait(events.aclose())

    def embed(self, texts: Sequence[Prompt]) -> list[Embedding]:
        """See `Client.embed`."""
        embeddings: list[Embedding] = self._wait(self._client.embed(texts))
        return embeddings

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(_coroutine(work), self._loop).result()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        """Hold the client open until `__exit__`."""
        self._loop, self._leave = asyncio.get_running_loop(), asyncio.Event()
        async with self._client:
            self._entered.set_result(None)
            await self._leave.wait()


async def _coroutine(work: Any) -> Any:
    return await work
