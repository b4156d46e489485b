"""What each member of a private swarm may have of this node at most, as its warrant says.

A member is one home: all its peers together. Sessions count while they are open. Tokens are a
bucket that holds a day's worth and fills evenly: a session takes what it was opened for, and gives
back at its end what it has not used. Buckets are this node's own and in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from p2pnode.errors import PeerRefused
from p2pnode.serving.session import HopSession
from p2pnode.trust.grants import Warrant
from p2pnode.types import PeerId

DAY_S = 86400.0
RETRY_AFTER_S = 2.0
MAX_MEMBERS = 4096

MemberOf = Callable[[PeerId], Warrant | None]


class Quotas:
    """Buckets of members, and whether a new session is within them; pure."""

    def __init__(self, peer: PeerId, member_of: MemberOf) -> None:
        """peer: us, who refuse; member_of: the warrant of a client"""
        self._peer = peer
        self._member_of = member_of
        self._left: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def take(
        self, client: PeerId, max_tokens: int, sessions: Iterable[HopSession], now: float
    ) -> None:
        """Count a new session; raises PeerRefused (as the client will see it) when over quota."""
        warrant = self._member_of(client)
        if warrant is None:
            return
        quota = warrant.quota
        if quota.sessions:
            num_open = len(
                {each.id for each in sessions if self._holder(each.client.peer) == warrant.holder}
            )
            if num_open >= quota.sessions:
                what = f"your invite allows {quota.sessions} sessions at a time here"
                raise PeerRefused(self._peer, what, RETRY_AFTER_S)
        if quota.tokens_per_day:
            left = self._filled(warrant, now)
            if max_tokens > left:
                missing = max_tokens - left
                what = f"your invite allows {quota.tokens_per_day} tokens per day here"
                what += f", {int(left)} are left and {max_tokens} asked for"
                wait_s = missing / quota.tokens_per_day * DAY_S
                raise PeerRefused(self._peer, what, wait_s)
            self._set(warrant.holder, left - max_tokens, now)

    def give_back(self, session: HopSession, now: float) -> None:
        """A session has ended: it has used so many tokens only."""
        warrant = self._member_of(session.client.peer)
        if warrant is None or not warrant.quota.tokens_per_day:
            return
        unused = session.max_tokens - session.position
        left = min(self._filled(warrant, now) + unused, warrant.quota.tokens_per_day)
        self._set(warrant.holder, left, now)

    def _holder(self, peer: PeerId) -> bytes | None:
        warrant = self._member_of(peer)
        return None if warrant is None else warrant.holder

    def _filled(self, warrant: Warrant, now: float) -> float:
        per_day = warrant.quota.tokens_per_day
        left, at = self._left.get(warrant.holder, (float(per_day), now))
        return min(float(per_day), left + (now - at) / DAY_S * per_day)

    def _set(self, holder: bytes, left: float, now: float) -> None:
        self._left[holder] = (left, now)
        self._left.move_to_end(holder)
        if len(self._left) > MAX_MEMBERS:
            self._left.popitem(last=False)
