"""The smallest kind of protocol: a stream carries one question and one answer.

Each is ``u16 length`` (big endian) and a msgpack header; one byte of the asker confirms the answer
(p2pd may lose what was written before a close).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from p2pnode.errors import P2PNodeError, PeerMisbehaved, WireError
from p2pnode.net.transport import ByteStream, Transport
from p2pnode.types import PeerId
from p2pnode.wire.codec import decode, encode

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 8 * 1024

_LENGTH_BYTES = 2
_CONFIRMED = b"\x01"

Answer = TypeVar("Answer")


async def ask(
    transport: Transport, asked: PeerId, protocol: str, question: object, expected: type[Answer]
) -> Answer:
    """Ask a connected peer. Raises PeerLost, PeerTimeout, or PeerMisbehaved for another answer.

    The deadline is the caller's.
    """
    stream = await transport.open_stream(asked, protocol)
    try:
        _write(stream, question)
        await stream.drain()
        answer = _checked(await _read(stream), expected)
        stream.write(_CONFIRMED)
        await stream.drain()
    except WireError as error:
        raise PeerMisbehaved(asked, str(error)) from error
    finally:
        stream.close()
    return answer


async def answer(
    stream: ByteStream, reply: Callable[[PeerId, object], Awaitable[object]], within_s: float
) -> None:
    """Serve one stream; what fails on it ends it. ``reply`` may raise WireError or PeerError."""
    try:
        async with asyncio.timeout(within_s):
            _write(stream, await reply(stream.peer, await _read(stream)))
            await stream.drain()
            await stream.read_exactly(len(_CONFIRMED))
    except (TimeoutError, P2PNodeError) as error:
        log.debug("question not answered: peer=%s error=%r", stream.peer.short, str(error))


def _write(stream: ByteStream, message: object) -> None:
    header, _ = encode(message)
    stream.write(len(header).to_bytes(_LENGTH_BYTES, "big") + header)


async def _read(stream: ByteStream) -> object:
    num_bytes = int.from_bytes(await stream.read_exactly(_LENGTH_BYTES), "big")
    if num_bytes > MAX_MESSAGE_BYTES:
        raise WireError(f"message of {num_bytes} bytes, at most {MAX_MESSAGE_BYTES}")
    return decode(await stream.read_exactly(num_bytes))


def _checked(message: object, expected: type[Answer]) -> Answer:
    if not isinstance(message, expected):
        raise WireError(f"expected {expected.__name__}, got {type(message).__name__}")
    return message
