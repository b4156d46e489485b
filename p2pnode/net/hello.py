"""The first frame of a stream."""

from __future__ import annotations

from p2pnode.errors import PeerMisbehaved, WireError
from p2pnode.net.transport import ByteStream
from p2pnode.version import SOFTWARE
from p2pnode.wire.codec import MAX_HEADER_BYTES
from p2pnode.wire.frames import END, PREFIX, Assembler, Prefix, frames
from p2pnode.wire.messages import PROTOCOL_VERSION, Hello

FIRST_CHANNEL = 1
NONCE_BYTES = 16


def write_hello(
    stream: ByteStream, nonce: bytes, *, credentials: bytes = b"", software: str = SOFTWARE
) -> None:
    """Say hello; raises PeerLost."""
    hello = Hello(version=PROTOCOL_VERSION, software=software, nonce=nonce, credentials=credentials)
    stream.write(*frames(hello, FIRST_CHANNEL))


async def read_hello(stream: ByteStream) -> Hello:
    """The other side's, of our version; raises PeerMisbehaved or PeerLost. The caller waits."""
    try:
        theirs = await _read(stream)
    except WireError as error:
        raise PeerMisbehaved(stream.peer, str(error)) from error
    if not isinstance(theirs, Hello):
        raise PeerMisbehaved(stream.peer, "did not greet first")
    if theirs.version != PROTOCOL_VERSION:
        what = f"speaks version {theirs.version} of the protocol, we speak {PROTOCOL_VERSION}"
        raise PeerMisbehaved(stream.peer, what)
    return theirs


async def _read(stream: ByteStream) -> object:
    """The first message: small, and without a tensor."""
    prefix = Prefix.parse(await stream.read_exactly(PREFIX.size))
    if prefix.num_bytes > MAX_HEADER_BYTES or prefix.flags & END:
        raise WireError(f"frame of {prefix.num_bytes} bytes, at most {MAX_HEADER_BYTES}")
    data = await stream.read_exactly(prefix.num_bytes)
    return Assembler(max_message_bytes=0).add(prefix, data)
