"""The answers of one request, as they grow: each is one generation of the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from p2pnode.client.client import Client
from p2pnode.client.events import ChainChosen, Done, Event, Token
from p2pnode.errors import P2PNodeError
from p2pnode.gateway.ask import Ask
from p2pnode.tasks import Tasks
from p2pnode.types import Chain

WAITING = 32
"""Events that may wait for the reader, of all answers together."""


@dataclass(slots=True, eq=False)
class Choice:
    """One answer. What it holds is what the caller has been told, so it can be resumed."""

    index: int
    tokens: list[Token] = field(default_factory=list)
    num_chars: int = 0
    """Of the text so far."""
    chain: Chain | None = None
    done: Done | None = None

    def take(self, event: Event) -> str:
        """Note what came; returns the text that it adds."""
        if isinstance(event, ChainChosen):
            self.chain = event.chain
            return ""
        if isinstance(event, Token):
            self.tokens.append(event)
            text = event.text
        else:
            self.done, self.chain = event, event.chain
            text = event.text[self.num_chars :]
        self.num_chars += len(text)
        return text


async def events_of(
    client: Client, ask: Ask, choices: Sequence[Choice]
) -> AsyncGenerator[tuple[Choice, Event], None]:
    """What happens to the answers that are not complete, all at once.

    The first error ends them all. Closing the iterator frees every chain.
    """
    left = [choice for choice in choices if choice.done is None]
    if len(left) == 1:
        async with aclosing(_stream(client, ask, left[0])) as events:
            async for event in events:
                yield left[0], event
        return
    queue: asyncio.Queue[tuple[Choice, Event | P2PNodeError]] = asyncio.Queue(WAITING)
    async with Tasks() as tasks:
        for choice in left:
            tasks.start(_pass_on(client, ask, choice, queue), name=f"choice-{choice.index}")
        num_left = len(left)
        while num_left:
            choice, told = await queue.get()
            if isinstance(told, P2PNodeError):
                raise told
            yield choice, told
            num_left -= isinstance(told, Done)


async def _pass_on(
    client: Client,
    ask: Ask,
    choice: Choice,
    queue: asyncio.Queue[tuple[Choice, Event | P2PNodeError]],
) -> None:
    try:
        async with aclosing(_stream(client, ask, choice)) as events:
            async for event in events:
                await queue.put((choice, event))
    except P2PNodeError as error:
        await queue.put((choice, error))


def _stream(client: Client, ask: Ask, choice: Choice) -> AsyncGenerator[Event, None]:
    return client.stream(
        ask.prompt_of(choice.index),
        max_tokens=ask.max_tokens,
        sampling=ask.samplings[choice.index],
        stop=ask.stop,
        resume_from=[token.token_id for token in choice.tokens],
    )
