"""The ring: the last hop hands each token that it has chosen straight to the first one.

So a loop has a way less: a token is fed before its client has heard of it. The client's own step
with it follows all the same, and says nothing new then. It shows whether the last hop has told both
the same, and it lets the ring go on, which is at most `MAX_AHEAD` tokens ahead. Where there is no
ring (the first hop cannot be reached, a client that is slow, guesses), that step is what counts.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from p2pnode.errors import PeerError
from p2pnode.net.link import Link
from p2pnode.net.links import Links
from p2pnode.serving.journal import ids_of
from p2pnode.types import PeerId, Tensor
from p2pnode.wire.messages import Step

if TYPE_CHECKING:
    from p2pnode.serving.job import Output
    from p2pnode.serving.session import HopSession

MAX_AHEAD = 48
"""What is computed for a client that has just stopped reading costs others at most this."""


class Differs(Exception):
    """The last hop has told its client another token than us."""

    def __init__(self, peer: PeerId) -> None:
        super().__init__("the last hop has told us another token than its client")
        self.peer = peer


@dataclass(slots=True)
class Ring:
    """Of one session, at one of its ends."""

    peer: PeerId
    """Who is at the other end."""
    link: Link | None = None
    """On the last hop: to the first one, once it is reached."""
    _told: int = 0
    """Tokens that the client has sent, guesses not counted."""
    _ahead: dict[int, int] = field(default_factory=dict)
    """By position: tokens that the client has not sent yet."""
    _waiting: Step | None = None
    """From the last hop, and too far ahead of the client for now."""

    def takes(self, step: Step, sender: PeerId, session: HopSession) -> bool:
        """On the first hop: whether a step counts, of the client or of the last hop.

        Raises Differs.
        """
        if sender != session.client.peer:
            return self._may_run(step, session)
        self._compare(step)
        return True

    def _may_run(self, step: Step, session: HopSession) -> bool:
        is_next = step.position == session.accepted < session.max_tokens
        if not is_next or step.branch != session.branch or step.entry.shape != (1,):
            return False
        if step.position >= self._told + MAX_AHEAD:
            self._waiting = step
            return False
        self._ahead[step.position] = ids_of(step.entry)[0]
        return True

    def _compare(self, step: Step) -> None:
        known = step.entry.shape[0] - step.num_guessed
        self._told = max(self._told, step.position + known)
        if not self._ahead or len(step.entry.shape) != 1:  # hidden states: then there is no ring
            return
        for index, token_id in enumerate(ids_of(step.entry)):
            ahead = self._ahead.pop(step.position + index, token_id)
            if ahead != token_id and index < known:  # guesses may differ
                raise Differs(self.peer)

    def released(self) -> Step | None:
        """On the first hop: what has waited for the client, once that has come near enough."""
        step = self._waiting
        if step is None or step.position >= self._told + MAX_AHEAD:
            return None
        self._waiting = None
        return step

    def cut(self, position: int) -> None:
        """On the first hop: what was run from there on is undone."""
        self._ahead = {at: each for at, each in self._ahead.items() if at < position}


async def reach(session: HopSession, links: Links, addresses: tuple[str, ...]) -> None:
    """On the last hop: connect to the first one; where that cannot be, there is no ring."""
    ring = session.ring
    if ring is not None and session.ends_chain and ring.peer != links.peer:
        with contextlib.suppress(PeerError):
            ring.link = await links.connect(ring.peer, addresses)


def following(session: HopSession, output: Output) -> Step | None:
    """On the last hop: the step with the newest token, unless its client has sent more already."""
    position = session.position
    is_newest = session.accepted == position <= session.settled
    if session.ring is None or session.is_standby or not output.chosen:
        return None
    if not is_newest or position >= session.max_tokens:
        return None
    token_id = output.chosen[-1].token_id
    return Step(
        session=session.id,
        layer=0,
        epoch=session.epoch,
        branch=session.branch,
        position=position,
        entry=Tensor("int64", (1,), memoryview(token_id.to_bytes(8, "little"))),
    )
