"""What is fuzzed of private swarms: warrants, news, greetings and invites."""

from __future__ import annotations

from p2pnode.errors import BadInvite, BadWarrant, Unwelcome
from p2pnode.net.identity import public_key
from p2pnode.trust import greeting as greetings
from p2pnode.trust.grants import read_warrant
from p2pnode.trust.greeting import Denial, Greeting, Occasion, read_greeting
from p2pnode.trust.invite import Invite, read_invite
from p2pnode.trust.news import DIGEST_BYTES, Claim, News, read_item, revoke
from tests.fuzz.running import Target
from tests.trust.test_grants import ADMIN, FOUNDER, FOUNDERS, INVITE, LATER, PEER, SWARM, full, to


def warrants() -> Target:
    """Grants from the founder down to a peer."""
    samples = [full().encode(), to(FOUNDERS, FOUNDER, ADMIN).encode(), b""]
    return Target(samples, lambda data: read_warrant(SWARM, data), (BadWarrant,))


def news() -> Target:
    """What members tell each other of invites that were used or taken back."""
    member = full().grants[:3]
    claim = Claim(type(full())(SWARM, member))
    target = public_key(INVITE.peer)
    revocation = revoke(FOUNDERS, target, LATER, 1, FOUNDER.sign)
    samples = [claim.item, revocation.item]

    def decode(data: bytes) -> object:
        News(SWARM).add(data, 1.0)
        return read_item(SWARM, data)

    return Target(samples, decode, (BadWarrant,))


def greeting() -> Target:
    """The sealed beginning of a stream."""
    speaker, listener = public_key(PEER.peer), public_key(ADMIN.peer)
    occasion = Occasion(SWARM, "/p2pnode/chain/1", speaker, listener, b"n" * 16, b"")
    told = Greeting(1_000, bytes(DIGEST_BYTES), full())
    samples = [
        greetings.greet(occasion, told, PEER.sign),
        greetings.deny(occasion, Denial.EXPIRED),
    ]

    def decode(data: bytes) -> object:
        try:
            return read_greeting(occasion, data)
        except Unwelcome as denial:
            return denial

    return Target(samples, decode, (BadWarrant,))


def invites() -> Target:
    """One line of text that somebody was sent."""
    where = ("/ip4/203.0.113.7/tcp/4001/p2p/12D3KooW",)
    invite = Invite("club", to(FOUNDERS, FOUNDER, INVITE), where, b"s" * 32)

    def decode(data: bytes) -> object:
        return read_invite(data.decode(errors="replace"))

    return Target([invite.text.encode()], decode, (BadInvite,))
