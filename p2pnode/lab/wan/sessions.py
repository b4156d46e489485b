"""Sessions that measure: what they have guessed is told, and older ways of decoding are there.

- **mediated**: each hop answers the client, which carries every step on to the next one;
- **no ring**: the client feeds each token, and nobody does before;
- **synchronous speculation** (Leviathan et al., "Fast inference from transformers via speculative
  decoding", 2023): the known token and K guesses travel as one step; nothing is guessed before its
  answer is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from p2pnode.client.client import Client
from p2pnode.client.request import Request
from p2pnode.client.router import SwarmRouter
from p2pnode.pipeline.configure import Terms, int64
from p2pnode.pipeline.policy import Policy
from p2pnode.pipeline.session import ChainSession
from p2pnode.pipeline.speculation import Drafter
from p2pnode.types import Chain, Chosen


@dataclass(slots=True, eq=False)
class Told:
    """A drafter, and what its guesses were worth (`Drafter`)."""

    drafter: Drafter
    window: int = 0
    """Guesses per synchronous window; 0: windows do not wait for each other."""
    policy: Policy | None = None
    """Of the session that it guessed for."""

    async def draft(self, known: Sequence[int], guesses: Sequence[int], num: int) -> list[int]:
        """See `Drafter.draft`."""
        return await self.drafter.draft(known, guesses, num)


class MeasuringSession(ChainSession):
    """A session in one of the older ways."""

    is_mediated = False
    fixed_chunk_tokens = 0
    """Of the prompt, per step; 0: as many as the session finds best."""
    window = 0
    drafter: Drafter | None = None
    """For windows of ``window`` guesses."""
    policy: Policy | None = None

    async def _find_chain(self) -> Chain:
        chain = await super()._find_chain()
        if not self.is_mediated:
            return chain
        first, *others = chain.hops
        return replace(chain, hops=(first, *(replace(hop, is_carried=True) for hop in others)))

    async def _feed(self) -> None:
        line = self.line
        self._chunk_tokens = self.fixed_chunk_tokens or self._chunk_tokens
        num = min(self.window, self._terms.max_tokens - 1 - len(line.tokens))
        is_decode = self._has_answered and line.unsent(2) == line.tokens[-1:]
        if self.drafter is None or num < 1 or not is_decode:
            await super()._feed()
            return
        line.guesses += await self.drafter.draft(line.tokens, [], num)
        self._send(int64([line.tokens[-1], *line.guesses]))

    def _learn(self, answered: Sequence[Chosen]) -> None:
        if self.policy is not None:
            for guess, chosen in zip(self.line.guesses, answered, strict=False):
                self.policy.told(is_right=guess == chosen.token_id)
                if guess != chosen.token_id:
                    break
        super()._learn(answered)

    @property
    def _has_answered(self) -> bool:
        return self._helpers.are_running


class MeasuringClient(Client):
    """A client with such sessions."""

    def __init__(
        self,
        *,
        is_mediated: bool = False,
        has_ring: bool = True,
        chunk_tokens: int = 0,
        **options: Any,
    ) -> None:
        """chunk_tokens: of a prompt, per step; 0: as many as sessions find best"""
        super().__init__(**options)
        self._has_ring = has_ring
        self._chunk_tokens = chunk_tokens
        self._session_type = MeasuringSession
        self._is_mediated = is_mediated

    def _session(
        self, router: SwarmRouter, request: Request, terms: Terms, drafter: Drafter | None
    ) -> ChainSession:
        terms = replace(terms, has_ring=self._has_ring and not self._is_mediated)
        told = drafter if isinstance(drafter, Told) else None
        waits = told is not None and told.window > 0
        session = super()._session(router, request, terms, None if waits else drafter)
        if isinstance(session, MeasuringSession):
            session.is_mediated = self._is_mediated
            session.fixed_chunk_tokens = self._chunk_tokens
            if told is not None and waits:
                session.window, session.drafter = told.window, told
                session.policy = told.policy = Policy()
            elif told is not None and session.speculation is not None:
                told.policy = session.speculation.policy
        return session
