"""One of the smallest of our protocols (`net.questions`): where are you, and where are others?"""

from __future__ import annotations

from p2pnode.dht.address_book import AddressBook
from p2pnode.errors import WireError
from p2pnode.net import questions
from p2pnode.net.transport import ByteStream, Transport
from p2pnode.types import PeerId
from p2pnode.wire.codec import message

WHOIS = "/p2pnode/whois/1"
SERVE_TIMEOUT_S = 5.0


@message("who_is")
class WhoIs:
    """Asker to anyone: I am reachable here; where is this peer?"""

    addresses: tuple[str, ...]
    """The asker's own; empty for one that cannot be dialled."""
    about: PeerId | None
    """None only introduces."""


@message("known")
class Known:
    """The answer: the addresses of that peer, empty when not known."""

    addresses: tuple[str, ...]


async def ask(
    transport: Transport, asked: PeerId, about: PeerId | None, *, is_client: bool
) -> tuple[str, ...]:
    """Introduce ourselves (unless a client) to a connected peer, and ask it about another.

    Raises what `questions.ask` raises. The deadline is the caller's.
    """
    ours = () if is_client else transport.addresses
    question = WhoIs(addresses=ours, about=about)
    return (await questions.ask(transport, asked, WHOIS, question, Known)).addresses


class WhoIsServer:
    """Answers from the address book, and notes in it what askers say about themselves."""

    def __init__(self, book: AddressBook, transport: Transport) -> None:
        self._book = book
        self._transport = transport

    async def handle(self, stream: ByteStream) -> None:
        """Serve one stream; a `StreamHandler`."""
        await questions.answer(stream, self._reply, SERVE_TIMEOUT_S)

    async def _reply(self, asker: PeerId, question: object) -> Known:
        if not isinstance(question, WhoIs):
            raise WireError(f"expected WhoIs, got {type(question).__name__}")
        self._book.learn(asker, question.addresses)
        return Known(addresses=self._about(question.about))

    def _about(self, peer: PeerId | None) -> tuple[str, ...]:
        if peer == self._transport.peer:
            return self._transport.addresses
        return () if peer is None else self._book.addresses(peer)
