"""A private swarm in this process: its founder, and warrants for whoever shall be in it."""

from __future__ import annotations

from collections.abc import Callable

from p2pnode.lab.overlay import EPOCH_S
from p2pnode.net.gate import key_of
from p2pnode.net.identity import Identity
from p2pnode.net.memory import fake_identity
from p2pnode.swarm.inside import Entrance
from p2pnode.trust.grants import Grant, Kind, Quota, Right, Warrant
from p2pnode.trust.guard import Guard
from p2pnode.trust.news import News, revoke
from p2pnode.types import PeerId

FOUNDER = 900
HOUR_S = 3600


class Founder:
    """Makes warrants and revocations of one swarm."""

    def __init__(self, number: int = FOUNDER) -> None:
        self.identity = fake_identity(number)
        self.warrant = Warrant(key_of(self.identity.peer))

    def grant(
        self,
        identity: Identity,
        right: Right = Right.SERVE,
        *,
        expires_in_s: float = HOUR_S,
        quota: Quota | None = None,
    ) -> Warrant:
        """A warrant for that key; time begins with the lab's."""
        grant = Grant(
            right=right,
            subject=key_of(identity.peer),
            expires_at=int(EPOCH_S + expires_in_s),
            quota=quota or Quota(),
        )
        return self.warrant.and_then(grant, self.identity.sign)

    def claimed(self, invite: Identity, identity: Identity) -> Warrant:
        """A warrant by an invite that this key has used."""
        warrant = self.grant(invite)
        claim = Grant(
            kind=Kind.CLAIM,
            right=warrant.right,
            subject=key_of(identity.peer),
            expires_at=warrant.expires_at,
        )
        return warrant.and_then(claim, invite.sign)

    def revoke(self, target: bytes) -> bytes:
        """An item of news."""
        until = int(EPOCH_S + HOUR_S)
        return revoke(self.warrant, target, until, 1, self.identity.sign).item


class Club:
    """The members of a private `LocalSwarm`: nodes may serve, clients use."""

    def __init__(self) -> None:
        self.founder = Founder()
        self.clients_expire_in_s = float(HOUR_S)
        self.quota = Quota()
        """Of clients that join from now on."""
        self.news: dict[PeerId, News] = {}
        """What each has heard."""
        self._guards: dict[PeerId, Guard] = {}

    def entrance(self, identity: Identity, clock: Callable[[], float], *, serves: bool) -> Entrance:
        """The way in for a new member."""
        if serves:
            warrant = self.founder.grant(identity)
        else:
            warrant = self.founder.grant(
                identity, Right.USE, expires_in_s=self.clients_expire_in_s, quota=self.quota
            )
        news = self.news[identity.peer] = News(warrant.swarm)
        guard = Guard(warrant, identity.sign, news, wall_clock=clock)
        self._guards[identity.peer] = guard
        return Entrance("club", guard)

    def admits(self, peer: PeerId, serves: bool) -> bool:
        """Whether the directory, which has heard what this peer has heard, has to do with it."""
        guard = self._guards.get(peer)
        if guard is None:
            return False
        warrant = guard.warrant
        is_over = warrant.expires_at <= guard.now() or guard.news.is_revoked(warrant)
        return not is_over and warrant.right >= (Right.SERVE if serves else Right.USE)
