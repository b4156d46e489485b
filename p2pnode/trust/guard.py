"""Who is let in: judges greetings and remembers the members that have given one. No I/O.

Everything that closes a door of a private swarm asks here: the gate at the beginning of a stream,
the directory at each call, and the loop that cuts the links of those whose time is up.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable

from p2pnode.errors import BadWarrant, NotAdmitted
from p2pnode.trust import greeting as greetings
from p2pnode.trust.grants import Right, Sign, Warrant, read_warrant
from p2pnode.trust.greeting import NONCE_BYTES, Denial, Greeting, Occasion
from p2pnode.trust.news import News

log = logging.getLogger(__name__)

CLOCKS_DIFFER_S = 10.0
"""A greeting is as good for so long before and after its time."""
MAX_MEMBERS = 4096
MAX_GREETINGS = 1024
"""Of one peer within the time that greetings are good for."""
MAX_GREETINGS_OF_ALL = 1 << 16


class Guard:
    """One peer's view of who is in its swarm.

    warrant: ours, ending in our peer's key; sign: with that key
    """

    def __init__(
        self, warrant: Warrant, sign: Sign, news: News, *, wall_clock: Callable[[], float]
    ) -> None:
        self.warrant = warrant
        self.news = news
        self._sign = sign
        self._wall_clock = wall_clock
        self.on_claim: Callable[[], None] = lambda: None
        """Told when a greeting has brought us a claim that we had not heard of."""
        self.on_other_news: Callable[[bytes], None] = lambda key: None
        """Told of a member that has not heard what we have, or more."""
        self._members: OrderedDict[bytes, Warrant] = OrderedDict()
        self._forgotten: list[bytes] = []
        """Peers for whom there was no room: nobody looks when their time is up."""
        self._judged = news.digest
        """What had been heard when all members were last judged."""
        self._greeted: OrderedDict[tuple[bytes, bytes], float] = OrderedDict()
        """When which nonce of which peer was used."""
        self._num_greeted: Counter[bytes] = Counter()

    @property
    def key(self) -> bytes:
        """The public key of our peer."""
        return self.warrant.subject

    def now(self) -> float:
        """The wall clock."""
        return self._wall_clock()

    # --- greetings

    def greet(self, key: bytes, protocol: str, nonce: bytes, answers: bytes = b"") -> bytes:
        """What we say to the peer of that key at the beginning of a stream."""
        told = Greeting(round(self.now() * 1000), self.news.digest, self.warrant)
        return greetings.greet(self._to(key, protocol, nonce, answers), told, self._sign)

    def admit(
        self,
        key: bytes,
        protocol: str,
        nonce: bytes,
        said: bytes,
        *,
        answers: bytes = b"",
        serves: bool = False,
    ) -> None:
        """Take a peer for a member because of what it has said.

        serves: whether it must be one that may serve
        Raises BadWarrant for a stranger, who is not to be answered, NotAdmitted for a member that
        may not do this (any more), and Unwelcome when that is what the peer says of us.
        """
        if len(nonce) != NONCE_BYTES:
            raise BadWarrant(f"a nonce of {len(nonce)} bytes")
        occasion = Occasion(self.warrant.swarm, protocol, key, self.key, nonce, answers)
        told = greetings.read_greeting(occasion, said)
        now = self.now()
        if abs(told.time_ms / 1000 - now) > CLOCKS_DIFFER_S:
            raise _not_admitted(Denial.CLOCK)
        if not answers:
            self._note_nonce(key, nonce, now)
        self.judge(told.warrant, _needed(serves))
        is_claim = self.news.claim(told.warrant, now)
        self._members[key] = told.warrant
        self._members.move_to_end(key)
        if len(self._members) > MAX_MEMBERS:
            self._forgotten.append(self._members.popitem(last=False)[0])
        if is_claim:
            log.info("invite used: member=%s", short(told.warrant.holder))
            self.on_claim()
        if told.digest != self.news.digest:
            self.on_other_news(key)

    def deny(
        self, key: bytes, protocol: str, nonce: bytes, answers: bytes, error: NotAdmitted
    ) -> bytes:
        """What we say to a member that is not let in, instead of a greeting."""
        return greetings.deny(self._to(key, protocol, nonce, answers), Denial(error.why))

    def judge(self, warrant: Warrant, right: Right = Right.USE) -> None:
        """Raises NotAdmitted unless a warrant is good for that, now and as far as we have heard."""
        if warrant.expires_at <= self.now():
            raise _not_admitted(Denial.EXPIRED)
        if self.news.is_revoked(warrant):
            raise _not_admitted(Denial.REVOKED)
        if self.news.is_used(warrant):
            raise _not_admitted(Denial.USED)
        if warrant.right < right:
            raise _not_admitted(Denial.RIGHT)

    # --- members

    def member(self, key: bytes, *, serves: bool = False) -> Warrant | None:
        """The warrant of a peer that has greeted us and may use (or serve) the swarm, now."""
        warrant = self._members.get(key)
        if warrant is None:
            return None
        try:
            self.judge(warrant, _needed(serves))
        except NotAdmitted:
            return None
        return warrant

    def vouch(self, key: bytes, shown: bytes, *, serves: bool = False) -> Warrant:
        """Judge a warrant without a greeting, in one process; raises what `admit` raises."""
        warrant = read_warrant(self.warrant.swarm, shown)
        if warrant.subject != key:
            raise BadWarrant("shows the warrant of another peer")
        self.judge(warrant, _needed(serves))
        self.news.claim(warrant, self.now())
        return warrant

    def lapsed(self) -> list[bytes]:
        """Peers that are members no more, each told once: their links are to be cut."""
        now, digest = self.now(), self.news.digest
        is_news, self._judged = digest != self._judged, digest
        gone = [
            key
            for key, warrant in self._members.items()
            if warrant.expires_at <= now or (is_news and self.member(key) is None)
        ]
        for key in gone:
            del self._members[key]
        gone += [key for key in self._forgotten if key not in self._members]
        self._forgotten = []
        return gone

    # --- helpers

    def _to(self, key: bytes, protocol: str, nonce: bytes, answers: bytes) -> Occasion:
        return Occasion(self.warrant.swarm, protocol, self.key, key, nonce, answers)

    def _note_nonce(self, key: bytes, nonce: bytes, now: float) -> None:
        """Raises NotAdmitted for a nonce that this peer has used, or when it has used too many."""
        greeted = self._greeted
        while greeted and next(iter(greeted.values())) < now - 2 * CLOCKS_DIFFER_S:
            (old, _), _ = greeted.popitem(last=False)
            self._num_greeted[old] -= 1
            if not self._num_greeted[old]:
                del self._num_greeted[old]
        if (key, nonce) in greeted:
            raise _not_admitted(Denial.REPLAYED)
        if self._num_greeted.get(key, 0) >= MAX_GREETINGS or len(greeted) >= MAX_GREETINGS_OF_ALL:
            raise _not_admitted(Denial.TOO_OFTEN)
        greeted[key, nonce] = now
        self._num_greeted[key] += 1


def _needed(serves: bool) -> Right:
    return Right.SERVE if serves else Right.USE


def _not_admitted(denial: Denial) -> NotAdmitted:
    return NotAdmitted(denial.words, denial)


def short(key: bytes) -> str:
    """A key for people and logs: as invites and members are listed and revoked."""
    return key.hex()[:16]
