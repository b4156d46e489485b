"""Guessing ahead: windows of guesses follow the known tokens without waiting for answers.

A task beside the session's main loop. It only sends; what the guesses were worth is found by
`ChainSession` when the tokens come, and a wrong one turns the line (`Line.confirm`). What then is
guessed for the old line is thrown away here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

from p2pnode.errors import PeerLost
from p2pnode.pipeline.line import Line, nobody_drafts
from p2pnode.pipeline.policy import Policy


class Drafter(Protocol):
    """Guesses tokens; its guesses never change the text, only how fast it comes."""

    async def draft(self, known: Sequence[int], guesses: Sequence[int], num: int) -> list[int]:
        """Up to ``num`` tokens that may follow ``known`` and then ``guesses``.

        known: only grows from call to call; guesses: may change from call to call
        """
        ...


class Pace(Protocol):
    """What tokens take, as measured; 0 while unknown."""

    def loop_s(self) -> float:
        """A step of one token that the client sends."""
        ...

    def plain_s(self) -> float:
        """A token without guesses."""
        ...


class Speculation:
    """Of one session; `run` works within one epoch."""

    def __init__(self, line: Line, drafter: Drafter, *, max_tokens: int) -> None:
        """max_tokens: that the session will ever hold"""
        self.policy = Policy()
        self._line = line
        self._drafter = drafter
        self._max_tokens = max_tokens

    async def run(self, send: Callable[[list[int]], None], pace: Pace) -> None:
        """Guess and send until cancelled, or until the first hop is gone.

        send: hands guesses to the first hop, in order
        """
        line, clock = self._line, asyncio.get_running_loop().time
        with contextlib.suppress(PeerLost):  # the main loop hears of it, too
            while True:
                num = self._wanted(pace)
                if not num:
                    await self._moves()
                    continue
                began, place = clock(), self._place
                guesses = await self._draft(num)
                if guesses:
                    self.policy.drafted(len(guesses), clock() - began)
                while place == self._place and (not guesses or line.sent < place[1]):
                    await self._moves()  # the known token goes first
                if place != self._place:
                    continue
                send(guesses)
                await self._pause(began + self.policy.interval_s(len(guesses)))

    @property
    def _place(self) -> tuple[int, int]:
        """The branch, and how long the line is: what guesses are for."""
        return self._line.branch, len(self._line.tokens) + len(self._line.guesses)

    async def _moves(self) -> None:
        self._line.moved.clear()
        await self._line.moved.wait()

    async def _draft(self, num: int) -> list[int]:
        """Guesses for the line as it is; none once it has turned, for they would be for the old."""
        line = self._line
        try:
            async with asyncio.timeout(None) as until_turned:
                line.on_turn = lambda: until_turned.reschedule(0.0)
                return await self._drafter.draft(line.tokens, line.guesses, num)
        except TimeoutError:
            return []
        finally:
            line.on_turn = nobody_drafts

    def _wanted(self, pace: Pace) -> int:
        line, (_, length) = self._line, self._place
        loop_s = pace.loop_s()
        if not loop_s:
            return 0
        room = self._max_tokens - 1 - length
        return max(0, min(room, self.policy.window(len(line.guesses), loop_s, pace.plain_s())))

    async def _pause(self, until: float) -> None:
        """Do not send faster than the slowest hop can follow; a new branch may begin at once."""
        line, clock = self._line, asyncio.get_running_loop().time
        branch = line.branch
        while line.branch == branch and (left_s := until - clock()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._moves()
