"""The generations of one client, to be shown: those that run, and the last ones that have ended.

How they go, never what they say: neither prompts nor answers are kept here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from p2pnode.client.outcome import Times
from p2pnode.pipeline.session import ChainSession
from p2pnode.pipeline.times import StepTimes, step_times

MAX_ENDED = 8
RUNNING, DONE, CANCELLED, FAILED = "running", "done", "cancelled", "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One generation at one moment."""

    id: str
    """16 hexadecimal digits; the session's name, shortened."""
    outcome: str
    """`RUNNING`, `DONE`, `CANCELLED` or `FAILED`."""
    prompt_tokens: int
    num_tokens: int
    """Of the answer."""
    ttft_s: float | None
    """Time to the first token; None: it has not come."""
    tokens_per_s: float
    failovers: int
    hedges: int
    hops: tuple[StepTimes, ...]


class Runs:
    """Keeps account; `Client.stream` enters each generation."""

    def __init__(self) -> None:
        self._running: dict[bytes, tuple[ChainSession, Times, int]] = {}
        self._ended: deque[Run] = deque(maxlen=MAX_ENDED)
        self._tokens_of_ended = 0

    @property
    def num_tokens(self) -> int:
        """All tokens of answers since the client began."""
        return self._tokens_of_ended + sum(t.num_tokens for _, t, _ in self._running.values())

    @asynccontextmanager
    async def entry(self, session: ChainSession, times: Times) -> AsyncIterator[None]:
        """A generation, for as long as the block runs; leave it after the session's own."""
        prompt_tokens, outcome = len(session.token_ids), CANCELLED
        self._running[session.id] = session, times, prompt_tokens
        try:
            yield
            outcome = DONE
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException:
            outcome = FAILED
            raise
        finally:
            del self._running[session.id]
            self._tokens_of_ended += times.num_tokens
            self._ended.append(_run(session, times, prompt_tokens, outcome))

    def snapshot(self) -> tuple[Run, ...]:
        """Those that run, the newest first, and then those that have ended, the last one first."""
        running = [_run(*each, RUNNING) for each in self._running.values()]
        return (*reversed(running), *reversed(self._ended))


def _run(session: ChainSession, times: Times, prompt_tokens: int, outcome: str) -> Run:
    return Run(
        id=session.id.hex()[:16],
        outcome=outcome,
        prompt_tokens=prompt_tokens,
        num_tokens=times.num_tokens,
        ttft_s=times.first - times.began if times.num_tokens else None,
        tokens_per_s=times.tokens_per_s,
        failovers=session.failovers,
        hedges=session.hedges,
        hops=step_times(session.hops, session.waiting.heard_s()),
    )
