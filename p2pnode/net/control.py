"""What we ask of p2pd over its control socket: connect, open and accept streams, list peers.

One connection per request, as the daemon wants it. hivemind has the same calls, but leaves its
connection open when one fails or is cancelled, and never gives up; here every call ends within
`TIMEOUT_S`, or the longer time that it was given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from p2pnode.errors import DaemonDied
from p2pnode.net.libraries import p2pd_pb2 as pb
from p2pnode.net.socket_stream import SocketStream

TIMEOUT_S = 3.0
GRACE_S = 0.5
"""The daemon is told to give up this much earlier, so that its reason arrives."""
SESSION_TAG, SESSION_WEIGHT = "session", 100
MAX_MESSAGE_BYTES = 16 * 1024 * 1024


class Refusal(Exception):
    """The daemon's answer was an error: a peer that cannot be reached, a protocol not spoken."""


class Control:
    """Requests to the daemon behind one socket.

    All raise DaemonDied when it is gone, TimeoutError when it does not answer.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def identify(self) -> tuple[bytes, list[bytes]]:
        """Our own peer id and the addresses that the daemon listens on, in binary."""
        answer = await self._ask(pb.Request(type=pb.Request.IDENTIFY))
        return answer.identify.id, list(answer.identify.addrs)

    async def connect(
        self, peer: bytes, addresses: Iterable[bytes], timeout_s: float = TIMEOUT_S
    ) -> None:
        """Dial a peer at any of its addresses; returns at once when connected. Raises Refusal."""
        connect = pb.ConnectRequest(
            peer=peer, addrs=list(addresses), timeout=_whole_seconds(timeout_s)
        )
        await self._ask(pb.Request(type=pb.Request.CONNECT, connect=connect), timeout_s)

    async def connected_peers(self) -> list[bytes]:
        """The ids of all peers that we are connected to."""
        answer = await self._ask(pb.Request(type=pb.Request.LIST_PEERS))
        return [peer.id for peer in answer.peers]

    async def connections(self) -> list[tuple[bytes, list[bytes]]]:
        """The ids of all peers that we are connected to, and where we see each, in binary."""
        answer = await self._ask(pb.Request(type=pb.Request.LIST_PEERS))
        return [(peer.id, list(peer.addrs)) for peer in answer.peers]

    async def protect(self, peer: bytes, is_protected: bool) -> None:
        """Let its connection be worth more than others when too many are closed, or no longer."""
        kind = pb.ConnManagerRequest.TAG_PEER if is_protected else pb.ConnManagerRequest.UNTAG_PEER
        tag = pb.ConnManagerRequest(type=kind, peer=peer, tag=SESSION_TAG, weight=SESSION_WEIGHT)
        await self._ask(pb.Request(type=pb.Request.CONNMANAGER, connManager=tag))

    async def trim(self) -> None:
        """Close connections until there are few enough; the daemon does so by itself, too."""
        tag = pb.ConnManagerRequest(type=pb.ConnManagerRequest.TRIM)
        await self._ask(pb.Request(type=pb.Request.CONNMANAGER, connManager=tag))

    async def open_stream(self, peer: bytes, protocol: str) -> SocketStream:
        """Open a stream: the connection becomes it. Raises Refusal."""
        opening = pb.StreamOpenRequest(
            peer=peer, proto=[protocol], timeout=_whole_seconds(TIMEOUT_S)
        )
        request = pb.Request(type=pb.Request.STREAM_OPEN, streamOpen=opening)
        async with asyncio.timeout(TIMEOUT_S):
            socket = await self._open()
            try:
                await _exchange(socket, request)
            except BaseException:
                socket.close()
                raise
        return socket

    async def accept_at(self, address: bytes, protocol: str) -> None:
        """Let the daemon hand inbound streams of a protocol to a socket of ours."""
        handler = pb.StreamHandlerRequest(addr=address, proto=[protocol], balanced=False)
        await self._ask(pb.Request(type=pb.Request.STREAM_HANDLER, streamHandler=handler))

    async def _ask(self, request: Any, timeout_s: float = TIMEOUT_S) -> Any:
        async with asyncio.timeout(timeout_s):
            socket = await self._open()
            try:
                return await _exchange(socket, request)
            finally:
                socket.close()

    async def _open(self) -> SocketStream:
        loop = asyncio.get_running_loop()
        try:
            _, socket = await loop.create_unix_connection(SocketStream, str(self._socket))
        except OSError as error:
            raise DaemonDied(f"p2pd does not answer ({error.strerror})") from error
        return socket


async def read_stream_info(socket: SocketStream) -> tuple[bytes, str]:
    """Whose inbound stream this is, and its protocol. Raises DaemonDied."""
    info = await _read(socket, pb.StreamInfo())
    return info.peer, info.proto


async def _exchange(socket: SocketStream, request: Any) -> Any:
    socket.write(_delimited(request.SerializeToString()))
    answer = await _read(socket, pb.Response())
    if answer.type == pb.Response.ERROR:
        raise Refusal(answer.error.msg)
    return answer


async def _read(socket: SocketStream, message: Any) -> Any:
    """Read one message after its length, a varint."""
    num_bytes = shift = 0
    try:
        while True:
            byte = (await socket.read_exactly(1))[0]
            num_bytes |= (byte & 0x7F) << shift
            if num_bytes > MAX_MESSAGE_BYTES:
                raise DaemonDied(f"p2pd sends a message of {num_bytes} bytes")
            if not byte & 0x80:
                break
            shift += 7
        message.ParseFromString(await socket.read_exactly(num_bytes))
    except (OSError, EOFError) as error:
        raise DaemonDied("p2pd hung up") from error
    except DecodeError as error:
        raise DaemonDied("p2pd sends what is not a message") from error
    return message


def _delimited(data: bytes) -> bytes:
    length = bytearray()
    rest = len(data)
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    length.append(rest)
    return bytes(length) + data


def _whole_seconds(timeout_s: float) -> int:
    return max(1, int(timeout_s - GRACE_S))
