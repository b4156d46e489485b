"""The gate of a private swarm: what stands on it sees streams to and from members only.

Rules:
- every stream, whatever its protocol, begins with a `Hello` each way, whose credentials the guard
  has made and judges; only then do those get it who asked for it, or serve it;
- a stranger gets no word back, a member that is not let in is told why;
- protocols have other names here, so that who is in another kind of swarm is known at once. The
  names are no secret: they say that a swarm is private, and not which.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

from p2pnode.errors import (
    BadWarrant,
    NotAdmitted,
    P2PNodeError,
    PeerDenied,
    PeerForeign,
    PeerLost,
    PeerTimeout,
    Unwelcome,
)
from p2pnode.net.ground import Ground
from p2pnode.net.hello import NONCE_BYTES, read_hello, write_hello
from p2pnode.net.identity import peer_of, public_key
from p2pnode.net.transport import ByteStream, StreamHandler
from p2pnode.types import PeerId
from p2pnode.wire.messages import CHAIN

log = logging.getLogger(__name__)

GREET_TIMEOUT_S = 3.0
MAX_GREETING = 512
MAX_GREETING_PER_PEER = 16
"""Streams that were opened to us and on which nothing has been said yet. Strangers who fill the
former keep other newcomers waiting, and no member that we know."""
SERVED_BY_NODES = frozenset({CHAIN})
"""What is asked of those only who may serve."""

key_of = functools.lru_cache(maxsize=16384)(public_key)


class Guard(Protocol):
    """Who makes and judges credentials; peers are named by their 32-byte keys."""

    def greet(self, key: bytes, protocol: str, nonce: bytes, answers: bytes = b"") -> bytes:
        """What we say to a peer; ``answers`` is its nonce when it has spoken first."""
        ...

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
        """Raises BadWarrant for a stranger, NotAdmitted for a member, Unwelcome: it says no."""
        ...

    def deny(
        self, key: bytes, protocol: str, nonce: bytes, answers: bytes, error: NotAdmitted
    ) -> bytes:
        """What we say to a member that is not let in."""
        ...

    def member(self, key: bytes, *, serves: bool = False) -> object | None:
        """Something when the peer has been let in, and would be now."""
        ...

    def lapsed(self) -> list[bytes]:
        """Who was let in and would not be now; each is told once."""
        ...


def private(protocol: str) -> str:
    """What a protocol is called in private swarms."""
    return protocol.replace("/p2pnode/", "/p2pnode/private/", 1)


class Gate:
    """A `Ground` for members; it stands on one that is already open."""

    def __init__(self, ground: Ground, guard: Guard) -> None:
        self._ground = ground
        self._guard = guard
        self._greeting: Counter[PeerId] = Counter()

    # --- members

    def admits(self, peer: PeerId, serves: bool = False) -> bool:
        """Whether a peer has greeted us and may use the swarm (or serve it), now."""
        return self._guard.member(key_of(peer), serves=serves) is not None

    def cut_lapsed(self) -> None:
        """End the streams of those who are members no more."""
        for key in self._guard.lapsed():
            peer = peer_of(key)
            log.info("member cut off: peer=%s", peer.short)
            self.cut(peer)

    # --- streams

    async def open_stream(self, peer: PeerId, protocol: str) -> ByteStream:
        """See `Transport.open_stream`; the peer is a member.

        Raises PeerForeign and PeerDenied, too.
        """
        try:
            stream = await self._ground.open_stream(peer, private(protocol))
        except PeerForeign as error:
            what = "is in no private swarm; public ones are joined without --invite"
            raise PeerForeign(peer, what) from error
        try:
            async with asyncio.timeout(GREET_TIMEOUT_S):
                await self._greet(stream, protocol)
        except TimeoutError as error:
            stream.close()
            raise PeerTimeout(peer, f"did not greet within {GREET_TIMEOUT_S:g} s") from error
        except BaseException:
            stream.close()
            raise
        return stream

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        """See `Transport.serve`; the handler gets streams of members."""
        await self._ground.serve(
            private(protocol), functools.partial(self._accept, protocol, handler)
        )

    async def _greet(self, stream: ByteStream, protocol: str) -> None:
        peer, nonce = stream.peer, os.urandom(NONCE_BYTES)
        key = key_of(peer)
        write_hello(stream, nonce, credentials=self._guard.greet(key, protocol, nonce))
        try:
            await stream.drain()
            hello = await read_hello(stream)
        except PeerLost as error:
            what = "did not greet us: it is of another swarm, or has just gone"
            raise PeerForeign(peer, what) from error
        serves = protocol in SERVED_BY_NODES
        try:
            self._guard.admit(
                key, protocol, hello.nonce, hello.credentials, answers=nonce, serves=serves
            )
        except Unwelcome as error:
            raise PeerDenied(peer, f"does not let us in: {error}") from error
        except NotAdmitted as error:
            raise PeerDenied(peer, f"is not let in by us: {error}") from error
        except BadWarrant as error:
            raise PeerForeign(peer, f"is of another swarm: {error}") from error

    async def _accept(self, protocol: str, handler: StreamHandler, stream: ByteStream) -> None:
        peer = stream.peer
        is_crowded = self._greeting.total() >= MAX_GREETING and not self.admits(peer)
        if is_crowded or self._greeting[peer] >= MAX_GREETING_PER_PEER:
            return
        self._greeting[peer] += 1
        try:
            async with asyncio.timeout(GREET_TIMEOUT_S):
                await self._let_in(stream, protocol)
        except (TimeoutError, P2PNodeError) as error:
            log.debug("not let in: peer=%s error=%r", peer.short, str(error))
            return
        finally:
            self._greeting[peer] -= 1
            self._greeting += Counter()  # forgets who has none
        await handler(stream)

    async def _let_in(self, stream: ByteStream, protocol: str) -> None:
        hello = await read_hello(stream)
        key, nonce, theirs = key_of(stream.peer), os.urandom(NONCE_BYTES), hello.nonce
        try:
            self._guard.admit(key, protocol, theirs, hello.credentials)
        except NotAdmitted as error:
            denial = self._guard.deny(key, protocol, nonce, theirs, error)
            write_hello(stream, nonce, credentials=denial)
            await stream.read_exactly(1)  # p2pd may lose what was written before a close
            raise
        answer = self._guard.greet(key, protocol, nonce, theirs)
        write_hello(stream, nonce, credentials=answer)
        await stream.drain()

    # --- as the ground has it

    @property
    def p2p(self) -> Any:
        """See `Ground.p2p`."""
        return self._ground.p2p

    @property
    def peer(self) -> PeerId:
        """See `Transport.peer`."""
        return self._ground.peer

    @property
    def addresses(self) -> tuple[str, ...]:
        """See `Transport.addresses`."""
        return self._ground.addresses

    async def connect(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """See `Transport.connect`."""
        await self._ground.connect(peer, addresses)

    async def wait_closed(self) -> None:
        """See `Transport.wait_closed`."""
        await self._ground.wait_closed()

    def listens_at(self) -> tuple[str, ...]:
        """See `Ground.listens_at`."""
        return self._ground.listens_at()

    async def observed(self) -> Mapping[PeerId, tuple[str, ...]]:
        """See `Ground.observed`: strangers, too, since anyone may connect."""
        return await self._ground.observed()

    def may_ask(self, peer: PeerId) -> bool:
        """See `Ground.may_ask`: a stranger would not answer, and many could keep us waiting."""
        return self.admits(peer)

    async def answers(self, address: str) -> bool:
        """See `Ground.answers`."""
        return await self._ground.answers(address)

    async def protect(self, peer: PeerId, is_protected: bool) -> None:
        """See `Transport.protect`."""
        await self._ground.protect(peer, is_protected)

    def cut(self, peer: PeerId) -> None:
        """See `Ground.cut`."""
        self._ground.cut(peer)
