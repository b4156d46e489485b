"""One generation followed from outside: its chains, its tokens, and when they came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from p2pnode.client.client import Client
from p2pnode.client.events import ChainChosen, Done, Token
from p2pnode.types import PeerId

PROMPT = [1, 403, 407, 261, 378, 31, 76, 99]
NUM_TOKENS = 40

Act = Callable[[int, list[PeerId]], None]
"""Called with the number of tokens so far, and the chain."""


class Run:
    """What was seen of an answer to `PROMPT`."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.at_s: list[float] = []
        self.chains: list[list[PeerId]] = []
        self.done: Done

    async def of(
        self,
        client: Client,
        *,
        num_tokens: int = NUM_TOKENS,
        pause_s: float = 0.0,
        act: Act = lambda count, chain: None,
        **options: Any,
    ) -> Done:
        """Ask and follow; pause_s: after each token, as a slow reader does."""
        events = client.stream(PROMPT, max_tokens=num_tokens, **options)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, ChainChosen):
                    self.chains.append([hop.peer for hop in event.chain.hops])
                elif isinstance(event, Done):
                    self.done = event
                elif isinstance(event, Token):
                    self.tokens.append(event.token_id)
                    self.at_s.append(asyncio.get_running_loop().time())
                    act(len(self.tokens), self.chains[-1])
                    await asyncio.sleep(pause_s)
        return self.done

    @property
    def gaps_s(self) -> list[float]:
        """From each token to the next."""
        return [b - a for a, b in zip(self.at_s, self.at_s[1:], strict=False)]

    @property
    def token_s(self) -> float:
        """The mean of the gaps."""
        return (self.at_s[-1] - self.at_s[0]) / (len(self.at_s) - 1)
