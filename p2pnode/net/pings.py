"""Signs of life that a link has asked for: what is not answered yet, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

MAX_PINGS = 64
"""Not answered; a live peer answers them in order, so that many mean that it does not read."""


class Pings:
    """The pings of one link. Times are the loop's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._num_sent = 0
        self._sent_at: dict[int, float] = {}
        self._answers: dict[int, asyncio.Future[float]] = {}

    @property
    def are_too_many(self) -> bool:
        """Whether the peer answers none."""
        return len(self._sent_at) >= MAX_PINGS

    def next(self) -> int:
        """The number of the next one, which is sent now."""
        self._num_sent += 1
        self._sent_at[self._num_sent] = self._clock()
        return self._num_sent

    def oldest_at(self, default: float) -> float:
        """When the oldest that is not answered was sent."""
        return min(self._sent_at.values(), default=default)

    def answer(self, number: int) -> asyncio.Future[float]:
        """The round trip of that ping in seconds, once it is known."""
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        answer.add_done_callback(lambda _: self._answers.pop(number, None))
        return answer

    def on_pong(self, number: int) -> float | None:
        """The round trip in seconds; None for the answer to a ping that was never sent."""
        sent = self._sent_at.pop(number, None)
        if sent is None:
            return None
        rtt_s = self._clock() - sent
        answer = self._answers.get(number)
        if answer is not None and not answer.done():
            answer.set_result(rtt_s)
        return rtt_s

    def cancel(self) -> None:
        """No more answers will come."""
        for answer in self._answers.values():
            answer.cancel()
