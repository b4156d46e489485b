"""Which addresses a peer has. The DHT's routing tables and chains know peers by id only.

Who may say where a peer is: the peer itself (its signed announcement, or its own introduction on
an authenticated stream). What others say is asked for when nothing else is known, tried, and kept
only when the peer was there. A wrong address costs a dial: every connection proves the peer's id.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from p2pnode.errors import PeerError, PeerLost
from p2pnode.types import Announcement, PeerId

MAX_PEERS = 8192
MAX_ADDRESSES = 8
MAX_ADDRESS_BYTES = 256
MAX_TELLERS = 3

T = TypeVar("T")

Connect = Callable[[PeerId, tuple[str, ...]], Awaitable[None]]
WhoIs = Callable[[PeerId, PeerId], Awaitable[tuple[str, ...]]]
"""(whom to ask, about whom) to addresses; raises PeerError."""


def valid_addresses(peer: PeerId, addresses: Iterable[str]) -> tuple[str, ...]:
    """Those that can be addresses of that peer, without repeats, at most `MAX_ADDRESSES`."""
    suffix = f"/p2p/{peer}"
    good = (
        address
        for address in addresses
        if address.startswith("/")
        and address.endswith(suffix)
        and address.isascii()
        and address.isprintable()
        and " " not in address
        and len(suffix) < len(address) <= MAX_ADDRESS_BYTES
    )
    return tuple(dict.fromkeys(good))[:MAX_ADDRESSES]


class AddressBook:
    """Peer ids to addresses, bounded; asks who told us of a peer when it knows none that work."""

    def __init__(self, connect: Connect, who_is: WhoIs) -> None:
        self._connect = connect
        self._who_is = who_is
        self._addresses: OrderedDict[PeerId, tuple[str, ...]] = OrderedDict()
        self._tellers: OrderedDict[PeerId, tuple[PeerId, ...]] = OrderedDict()

    def learn(self, peer: PeerId, addresses: Iterable[str]) -> None:
        """Take the peer's own word; none that is valid changes nothing."""
        good = valid_addresses(peer, addresses)
        if good:
            _put(self._addresses, peer, good)

    def learn_announced(self, announcements: Iterable[Announcement]) -> None:
        """Take the addresses of verified announcements."""
        for announcement in announcements:
            self.learn(announcement.peer, announcement.addresses)

    def heard(self, about: PeerId, teller: PeerId) -> None:
        """Remember who told us of a peer: it should know where that peer is."""
        others = (each for each in self._tellers.get(about, ()) if each != teller)
        _put(self._tellers, about, (teller, *others)[:MAX_TELLERS])

    def addresses(self, peer: PeerId) -> tuple[str, ...]:
        """What we know; may be empty."""
        return self._addresses.get(peer, ())

    async def connect(self, peer: PeerId) -> None:
        """Connect to a peer, asking for its addresses when ours do not work; raises PeerLost.

        The deadline is the caller's.
        """
        known = self.addresses(peer)
        try:
            await self._connect(peer, known)
        except PeerError as error:
            if not await self._ask_and_connect(peer, known):
                raise PeerLost(peer, f"cannot be reached: {error}") from error

    async def _ask_and_connect(self, peer: PeerId, known: tuple[str, ...]) -> bool:
        for teller in self._tellers.get(peer, ()):
            try:
                told = valid_addresses(peer, await self._who_is(teller, peer))
                if told and told != known:
                    await self._connect(peer, told)
                    self.learn(peer, told)
                    return True
            except PeerError:
                continue
        return False


def _put(book: OrderedDict[PeerId, T], peer: PeerId, value: T) -> None:
    book[peer] = value
    book.move_to_end(peer)
    if len(book) > MAX_PEERS:
        book.popitem(last=False)
