"""What all hops are told at once: that a session ends, or that its guesses were wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from p2pnode.errors import PeerLost
from p2pnode.pipeline.hops import HopState
from p2pnode.wire.messages import Close, Cut


async def close_all(
    hops: Sequence[HopState], session: bytes, *, pages: bytes, within_s: float
) -> None:
    """Free all hops; within_s: how long to wait for their costs.

    pages: names of what they may keep for later sessions
    """
    replies = []
    for state in hops:
        state.is_closing = True
        if state.is_usable:
            replies.append(state.expect_reply())
        free(state, session, pages)
    if within_s and replies:
        await asyncio.wait(replies, timeout=within_s)
    for reply in replies:
        reply.cancel()


def free(state: HopState, session: bytes, pages: bytes = b"") -> None:
    """Free one hop."""
    _tell(state, Close(session=session, layer=state.layer, pages=pages))


def cut_all(
    hops: Sequence[HopState], session: bytes, *, epoch: int, branch: int, position: int
) -> None:
    """Guesses were wrong: nobody holds anything from that position on, in a new branch."""
    for state in hops:
        cut = Cut(session=session, layer=state.layer, epoch=epoch, branch=branch, position=position)
        _tell(state, cut)


def _tell(state: HopState, message: Close | Cut) -> None:
    """Send something that does not matter to a peer that is gone."""
    with contextlib.suppress(PeerLost):
        state.send(message)
