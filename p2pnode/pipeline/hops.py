"""What the client knows of each hop of its session: link, how far it is, what it has cost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from p2pnode.errors import PeerLost
from p2pnode.net.link import Link
from p2pnode.types import Chain, Hop, PeerId
from p2pnode.wire.messages import Fault, Opened, Progress, Refused, Rerouted, Result

ANSWERS = (Opened, Refused, Rerouted, Result, Progress, Fault)
"""What nodes say within an epoch."""


@dataclass(slots=True, eq=False)
class HopState:
    """One hop of a running session, or its standby, seen from the client."""

    hop: Hop
    link: Link | None = None
    held: int = 0
    """A lower bound of the positions that it has computed and journalled."""
    replays_from: int = 0
    """The first position whose output it can send again."""
    is_open: bool = False
    """Whether it has a place for the session."""
    is_lost: bool = False
    gives_way: bool = False
    """It leaves, or its standby is faster: to be replaced when that costs nothing."""
    is_closing: bool = False
    num_steps: int = 0
    queue_s: float = 0.0
    compute_s: float = 0.0
    recent_compute_s: float = 0.0
    """Of the last steps that it told of, mean; so is ``recent_queue_s``."""
    recent_queue_s: float = 0.0
    _reply: asyncio.Future[Any] | None = field(default=None, repr=False)

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

    @property
    def is_awaited(self) -> bool:
        """Whether its answer is due still, or was when nobody would wait any longer."""
        return self._reply is not None and (not self._reply.done() or self._reply.cancelled())

    def expect_nothing(self) -> None:
        """It has not been asked yet."""
        self._reply = None

    def send(self, message: object) -> None:
        """Hand it a message; raises PeerLost when its link is gone."""
        if self.link is None or not self.link.is_open:
            raise PeerLost(self.peer, "its link is gone")
        self.link.send(message)

    def expect_reply(self) -> asyncio.Future[Any]:
        """A future for its answer to the next request."""
        self._reply = asyncio.get_running_loop().create_future()
        return self._reply

    def answer(self, message: object) -> None:
        """Its answer came."""
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(message)

    def fail(self, error: Exception) -> None:
        """Nobody should wait for its answer any longer."""
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)
            self._reply.exception()  # seen: asyncio must not complain when nobody waits any more

    def progress(self, message: Progress, num_tokens: int) -> None:
        """It says how far it is; no more is believed than there are tokens."""
        self.held = max(self.held, min(message.position, num_tokens))
        self.replays_from = max(self.replays_from, min(message.replays_from, num_tokens))
        self.cost(message)

    def cost(self, message: Any) -> None:
        """Note the totals of a `Progress` or `Closed`."""
        new_steps = message.num_steps - self.num_steps
        if new_steps > 0:
            self.recent_compute_s = (message.compute_s - self.compute_s) / new_steps
            self.recent_queue_s = (message.queue_s - self.queue_s) / new_steps
        self.num_steps = message.num_steps
        self.queue_s = message.queue_s
        self.compute_s = message.compute_s


def adopted(states: list[HopState], chain: Chain) -> list[HopState]:
    """The states of a chain's hops: those of surviving hops are kept."""
    kept = {(state.peer, state.hop.layers): state for state in states if not state.is_lost}
    found = [kept.get((hop.peer, hop.layers)) or HopState(hop) for hop in chain.hops]
    for state, hop in zip(found, chain.hops, strict=True):
        state.hop = hop
    return found


def positions(hops: list[HopState], num_tokens: int) -> list[int]:
    """How many positions each hop keeps when the chain is configured anew.

    A hop that is not usable starts at 0. The last one is asked for the output of the last token
    again, so it keeps one position less. A hop that has forgotten what its successor needs makes
    it again, and so needs its own input anew: from its predecessor's journal, or further up.
    """
    kept = [hop.held if hop.is_usable else 0 for hop in hops]
    kept[-1] = min(kept[-1], num_tokens - 1)
    for index in reversed(range(len(hops) - 1)):
        needed = kept[index + 1]
        if needed < hops[index].replays_from:
            kept[index] = min(kept[index], needed)
    return kept
