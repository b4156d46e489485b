"""One stream to one peer, carrying whole messages: greeting, framing, fair sending, heartbeat.

Rules of a link:
- both sides send `Hello` first; anything else first ends the link;
- small messages are written at once; what is longer than a frame goes out frame by frame, taking
  turns with everything else, and waits while the peer does not read;
- a link ends well by an END frame, else with the `PeerError` that says what happened;
- silence is not an error of a stream: whoever needs to know runs the heartbeat.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

from p2pnode.errors import PeerError, PeerLost, PeerMisbehaved, PeerTimeout, WireError
from p2pnode.net.transport import ByteStream
from p2pnode.types import PeerId
from p2pnode.wire.codec import MAX_HEADER_BYTES
from p2pnode.wire.frames import (
    END,
    MAX_FRAME_BYTES,
    MAX_MESSAGE_BYTES,
    PREFIX,
    Assembler,
    Prefix,
    end_frame,
    frames,
)
from p2pnode.wire.messages import PROTOCOL_VERSION, Hello, Ping, Pong

log = logging.getLogger(__name__)

MAX_UNDRAINED_BYTES = 256 * 1024
MAX_QUEUED_MESSAGES = 4096


class LinkEvents(Protocol):
    """Who is told what happens on links. Calls must not block."""

    def on_message(self, link: Link, message: Any) -> None:
        """A whole message came; a PeerError raised here ends the link."""
        ...

    def on_lost(self, link: Link, error: PeerError) -> None:
        """The link is gone; called once, also after a good end (then with a PeerLost)."""
        ...


class Link:
    """Messages to and from one peer over one stream of one traffic class."""

    def __init__(self, stream: ByteStream, traffic: str, events: LinkEvents) -> None:
        self.stream = stream
        self.traffic = traffic
        self.peer: PeerId = stream.peer
        self.error: PeerError | None = None
        self.rtt_s: float | None = None
        self._events = events
        self._queue: deque[Iterator[bytes | memoryview]] = deque()
        self._wake = asyncio.Event()
        self._undrained_bytes = 0
        self._channel = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._pongs: dict[int, float] = {}

    @property
    def is_open(self) -> bool:
        """Whether messages can still be sent."""
        return self.error is None

    def send(self, message: object) -> None:
        """Hand a message over; never waits. Raises PeerLost when the link is gone."""
        if self.error is not None:
            raise PeerLost(self.peer, f"the link is gone ({self.error})")
        if len(self._queue) >= MAX_QUEUED_MESSAGES:
            self.end(PeerTimeout(self.peer, f"{MAX_QUEUED_MESSAGES} messages wait to be read"))
            raise PeerLost(self.peer, "it has stopped reading")
        self._channel = self._channel % 0xFFFF_FFFF + 1
        pieces = list(frames(message, self._channel))
        if self._queue or len(pieces) > 2 or self._undrained_bytes > MAX_UNDRAINED_BYTES:
            self._queue.append(iter(pieces))
        else:
            for piece in pieces:
                self._write(piece)
        if self._queue or self._undrained_bytes > MAX_UNDRAINED_BYTES:
            self._wake.set()

    def end(self, error: PeerError) -> None:
        """Stop using the link now; `run` returns."""
        if self.error is None:
            self.error = error
            for task in self._tasks:
                task.cancel()

    async def greet(self, software: str) -> None:
        """Exchange `Hello`; raises PeerMisbehaved or PeerLost. The caller sets the deadline."""
        self._channel += 1
        hello = Hello(
            version=PROTOCOL_VERSION, software=software, nonce=os.urandom(16), credentials=b""
        )
        for piece in frames(hello, self._channel):
            self._write(piece)
        try:
            theirs = await self._read_message(Assembler(max_message_bytes=0), MAX_HEADER_BYTES)
        except WireError as error:
            raise PeerMisbehaved(self.peer, str(error)) from error
        if not isinstance(theirs, Hello):
            raise PeerMisbehaved(self.peer, "did not greet first")
        if theirs.version != PROTOCOL_VERSION:
            what = f"speaks version {theirs.version} of the protocol, we speak {PROTOCOL_VERSION}"
            raise PeerMisbehaved(self.peer, what)

    async def run(self, heartbeat: tuple[float, float] | None = None) -> None:
        """Receive and send until the link ends; ``heartbeat`` is (interval_s, timeout_s)."""
        try:
            if self.error is None:  # else it was ended before it ran
                async with asyncio.TaskGroup() as tasks:
                    loops = [self._receive(), self._pump()]
                    if heartbeat is not None:
                        loops.append(self._heartbeat(*heartbeat))
                    self._tasks = [
                        tasks.create_task(loop, name=f"link-{self.peer.short}") for loop in loops
                    ]
        finally:
            self.error = self.error or PeerLost(self.peer, "we closed the link")
            self.stream.close()
            self._events.on_lost(self, self.error)

    async def finish(self) -> None:
        """Send what waits and the END frame; the caller sets the deadline."""
        if self.error is not None:
            return
        while self._queue:
            await self._send_turn()
        self._write(end_frame())
        await self.stream.drain()

    def _write(self, piece: bytes | memoryview) -> None:
        self.stream.write(piece)
        self._undrained_bytes += len(piece)

    async def _receive(self) -> None:
        assembler = Assembler(MAX_MESSAGE_BYTES)
        try:
            while True:
                message = await self._read_message(assembler, MAX_FRAME_BYTES)
                if message is None:
                    return self.end(PeerLost(self.peer, "it closed the link"))
                if isinstance(message, Ping):
                    self.send(Pong(number=message.number))
                elif isinstance(message, Pong):
                    self._on_pong(message)
                else:
                    self._events.on_message(self, message)
        except WireError as error:
            self.end(PeerMisbehaved(self.peer, str(error)))
        except PeerError as error:
            self.end(error)

    async def _read_message(self, assembler: Assembler, max_frame_bytes: int) -> Any:
        """The next whole message; None after END."""
        read = self.stream.read_exactly
        while True:
            prefix = Prefix.parse(await read(PREFIX.size))
            if prefix.num_bytes > max_frame_bytes:
                raise WireError(f"frame of {prefix.num_bytes} bytes, at most {max_frame_bytes}")
            if prefix.flags & END:
                return None
            message = assembler.add(prefix, await read(prefix.num_bytes))
            if message is not None:
                return message

    async def _pump(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue or self._undrained_bytes > MAX_UNDRAINED_BYTES:
                    await self._send_turn()
        except PeerError as error:
            self.end(error)

    async def _send_turn(self) -> None:
        """One frame of the message whose turn it is, then wait for room."""
        if self._queue:
            pieces = self._queue.popleft()
            prefix = next(pieces, None)
            if prefix is not None:
                self._write(prefix)
                body = next(pieces, None)
                if body is not None:
                    self._write(body)
                self._queue.append(pieces)
        await self.stream.drain()
        self._undrained_bytes = 0

    async def _heartbeat(self, interval_s: float, timeout_s: float) -> None:
        clock = asyncio.get_running_loop().time
        number = 0
        try:
            while True:
                number += 1
                self._pongs[number] = clock()
                self.send(Ping(number=number))
                await asyncio.sleep(interval_s)
                oldest = min(self._pongs.values(), default=clock())
                if clock() - oldest > timeout_s:
                    what = f"no answer to a heartbeat for {timeout_s:g} s"
                    return self.end(PeerTimeout(self.peer, what))
        except PeerError as error:
            self.end(error)

    def _on_pong(self, pong: Pong) -> None:
        sent = self._pongs.pop(pong.number, None)
        if sent is None:
            raise PeerMisbehaved(self.peer, f"answers a ping {pong.number} that was never sent")
        self.rtt_s = asyncio.get_running_loop().time() - sent
