"""What the client knows of each hop of its session: link, how far it is, what it has cost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from p2pnode.net.link import Link
from p2pnode.types import Hop, PeerId


@dataclass(slots=True, eq=False)
class HopState:
    """One hop of a running session, seen from the client."""

    hop: Hop
    link: Link | None = None
    held: int = 0
    """A lower bound of the positions that it has computed and journalled."""
    is_lost: bool = False
    is_closing: bool = False
    num_steps: int = 0
    queue_s: float = 0.0
    compute_s: float = 0.0
    reply: asyncio.Future[Any] | None = field(default=None, repr=False)
    """Waits for its answer to `Open`, `Reroute` or `Close`."""

    @property
    def peer(self) -> PeerId:
        """Who it is."""
        return self.hop.peer

    @property
    def layer(self) -> int:
        """How messages name it."""
        return self.hop.layers.start

    @property
    def is_usable(self) -> bool:
        """Whether it may stay in the chain."""
        return not self.is_lost and self.link is not None and self.link.is_open

    def fail(self, error: Exception) -> None:
        """Nobody should wait for its answer any longer."""
        if self.reply is not None and not self.reply.done():
            self.reply.set_exception(error)
            self.reply.exception()  # seen: asyncio must not complain when nobody waits any more

    def answer(self, message: object) -> None:
        """Its answer came."""
        if self.reply is not None and not self.reply.done():
            self.reply.set_result(message)

    def cost(self, message: Any) -> None:
        """Note the totals of a `Progress` or `Closed`."""
        self.num_steps = message.num_steps
        self.queue_s = message.queue_s
        self.compute_s = message.compute_s


def positions(states: list[HopState], num_tokens: int) -> list[int]:
    """How many positions each hop keeps when the chain is configured anew.

    A hop that is not usable starts at 0. The last one is asked for the output of the last token
    again, so it keeps one position less.
    """
    kept = [state.held if state.is_usable else 0 for state in states]
    kept[-1] = min(kept[-1], num_tokens - 1)
    return kept
