"""The smallest of our protocols: say where you are, ask where others are.

A stream carries one `WhoIs`, one `Known` and one byte that confirms it (p2pd may lose what was
written before a close). Each message is ``u16 length`` (big endian) and a msgpack header.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TypeVar

from p2pnode.dht.address_book import AddressBook
from p2pnode.errors import PeerLost, PeerMisbehaved, WireError
from p2pnode.net.transport import ByteStream, Transport
from p2pnode.types import PeerId
from p2pnode.wire.codec import decode, encode, message

log = logging.getLogger(__name__)

WHOIS = "/p2pnode/whois/1"
MAX_MESSAGE_BYTES = 8 * 1024
SERVE_TIMEOUT_S = 5.0

_LENGTH_BYTES = 2
_CONFIRMED = b"\x01"


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


Asked = TypeVar("Asked", WhoIs, Known)


async def ask(
    transport: Transport, asked: PeerId, about: PeerId | None, *, is_client: bool
) -> tuple[str, ...]:
    """Introduce ourselves (unless a client) to a connected peer, and ask it about another.

    Raises PeerLost, or PeerMisbehaved when the answer is none. The deadline is the caller's.
    """
    stream = await transport.open_stream(asked, WHOIS)
    try:
        ours = () if is_client else transport.addresses
        _write(stream, WhoIs(addresses=ours, about=about))
        await stream.drain()
        known = await _read(stream, Known)
        stream.write(_CONFIRMED)
        await stream.drain()
    except WireError as error:
        raise PeerMisbehaved(asked, str(error)) from error
    finally:
        stream.close()
    return known.addresses


class WhoIsServer:
    """Answers from the address book, and notes in it what askers say about themselves."""

    def __init__(self, book: AddressBook, transport: Transport) -> None:
        self._book = book
        self._transport = transport

    async def handle(self, stream: ByteStream) -> None:
        """Serve one stream; a `StreamHandler`."""
        try:
            async with asyncio.timeout(SERVE_TIMEOUT_S):
                asked = await _read(stream, WhoIs)
                self._book.learn(stream.peer, asked.addresses)
                _write(stream, Known(addresses=self._about(asked.about)))
                await stream.drain()
                await stream.read_exactly(len(_CONFIRMED))
        except (TimeoutError, PeerLost, WireError) as error:
            log.debug("whois failed: peer=%s error=%r", stream.peer.short, str(error))

    def _about(self, peer: PeerId | None) -> tuple[str, ...]:
        if peer == self._transport.peer:
            return self._transport.addresses
        return () if peer is None else self._book.addresses(peer)


def _write(stream: ByteStream, value: WhoIs | Known) -> None:
    header, _ = encode(value)
    stream.write(len(header).to_bytes(_LENGTH_BYTES, "big") + header)


async def _read(stream: ByteStream, expected: type[Asked]) -> Asked:
    num_bytes = int.from_bytes(await stream.read_exactly(_LENGTH_BYTES), "big")
    if num_bytes > MAX_MESSAGE_BYTES:
        raise WireError(f"whois message of {num_bytes} bytes, at most {MAX_MESSAGE_BYTES}")
    value = decode(await stream.read_exactly(num_bytes))
    if not isinstance(value, expected):
        raise WireError(f"expected {expected.__name__}, got {type(value).__name__}")
    return value
