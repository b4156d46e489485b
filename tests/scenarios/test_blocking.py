"""The blocking client: the same answers without an event loop of the caller's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2pnode.client.blocking import BlockingClient
from p2pnode.client.events import Done, Token
from p2pnode.errors import BadRequest, NoChain
from p2pnode.lab.swarm import LocalSwarm
from tests.support.models import greedy

PROMPT = [1, 403, 407, 261]


class OnLoop(BlockingClient):
    """A blocking client whose loop also runs a swarm in memory, which lives on one loop."""

    def __init__(self, swarm: LocalSwarm, *ranges: str) -> None:
        super().__init__()
        self._swarm, self._ranges = swarm, ranges

    async def _serve(self) -> None:
        async with self._swarm:
            await self._swarm.start(*self._ranges)
            self._client = self._swarm.client()
            await super()._serve()


@contextmanager
def client_of(tiny: Path, cache: Path, *ranges: str) -> Iterator[BlockingClient]:
    with OnLoop(LocalSwarm(tiny, cache=cache), *ranges) as client:
        yield client


def test_a_blocking_client_generates_and_streams(tiny: Path, cache: Path) -> None:
    expected = greedy(tiny, PROMPT, 8)
    with client_of(tiny, cache, "0-4", "5-8") as client:
        assert list(client.generate(PROMPT, max_tokens=8).token_ids) == expected
        events = list(client.stream(PROMPT, max_tokens=8))
        assert [event.token_id for event in events if isinstance(event, Token)] == expected
        assert isinstance(events[-1], Done)
    assert not any(thread.name.startswith("p2pnode-client") for thread in threading.enumerate())


def test_leaving_a_stream_early_leaves_the_client_usable(tiny: Path, cache: Path) -> None:
    with client_of(tiny, cache, "0-8") as client:
        for event in client.stream(PROMPT, max_tokens=50):
            if isinstance(event, Token):
                break
        with pytest.raises(BadRequest):
            client.generate("")
        assert client.generate(PROMPT, max_tokens=2).finish_reason == "length"


def test_an_error_of_joining_is_raised_where_it_is_entered(tiny: Path, cache: Path) -> None:
    with pytest.raises(NoChain), client_of(tiny, cache):
        pass


def test_two_threads_share_a_client(tiny: Path, cache: Path) -> None:
    with client_of(tiny, cache, "0-8") as client:
        answers: list[tuple[int, ...]] = []

        def ask() -> None:
            answers.append(client.generate(PROMPT, max_tokens=6).token_ids)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [tuple(greedy(tiny, PROMPT, 6))] * 2
