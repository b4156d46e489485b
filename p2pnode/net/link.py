"""One stream to one peer, carrying whole messages: greeting, framing, fair sending, heartbeat.

Rules of a link:
- both sides send `Hello` first; anything else first ends the link;
- small messages are written at once; what is longer than a frame goes out frame by frame, taking
  turns with everything else, and waits while the peer does not read;
- hidden states come from the socket into the memory that torch computes on, and leave from there;
  they are coded where the link has a lossy coding, or is slower than coding without loss;
- a link ends well by an END frame, else with the `PeerError` that says what happened;
- silence is not an error of a stream: whoever needs to know watches the link or pings it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Coroutine, Iterator
from typing import Any, Protocol

from p2pnode.errors import PeerError, PeerLost, PeerMisbehaved, PeerTimeout, WireError
from p2pnode.net.hello import FIRST_CHANNEL, NONCE_BYTES, read_hello, write_hello
from p2pnode.net.patience import Patience
from p2pnode.net.pings import MAX_PINGS, Pings
from p2pnode.net.transport import ByteStream
from p2pnode.net.uplink import Uplink
from p2pnode.net.volume import Volume
from p2pnode.types import PeerId, Tensor
from p2pnode.wire.coding import LOSSY, Buffers, choose
from p2pnode.wire.frames import Assembler, FrameWriter, end_frame
from p2pnode.wire.messages import Ping, Pong
from p2pnode.wire.padding import Padding
from p2pnode.wire.reader import END_OF_STREAM, FrameReader

log = logging.getLogger(__name__)

MAX_UNDRAINED_BYTES = 256 * 1024


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
        self.is_inbound = False
        """Whether the peer has opened it."""
        self.received_at = 0.0  # when the last bytes came, in the loop's time
        self.uplink = Uplink()
        self.volume = Volume()
        """Shared by all links of our traffic class (`Links.volumes`)."""
        self._events = events
        self._assembler = Assembler()
        self._reader = FrameReader(self._assembler)
        self._queue: deque[tuple[Iterator[Buffers], int]] = deque()
        """Messages that wait, frame by frame, and how long each is."""
        self.patience = Patience()
        self._wake = asyncio.Event()
        self._undrained_bytes = 0
        self._channel = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._group: asyncio.TaskGroup | None = None
        self._watch_times: tuple[float, float] | None = None
        self._clock = asyncio.get_running_loop().time
        self._pings = Pings(self._clock)

    def agree_on(self, lossy: str) -> None:
        """Code hidden states so, both ways: the numerics class of our sessions says it.

        A coding that we do not know is none: what comes so ends the link.
        """
        self._assembler.lossy = lossy if lossy in LOSSY else ""

    @property
    def is_watched(self) -> bool:
        """Whether our heartbeat runs on it."""
        return self._watch_times is not None

    @property
    def is_open(self) -> bool:
        """Whether messages can still be sent."""
        return self.error is None

    def send(self, message: object) -> None:
        """Hand a message over; never waits. Raises PeerLost when the link is gone."""
        if self.error is not None:
            raise PeerLost(self.peer, f"the link is gone ({self.error})")
        if self._queue and (what := self.patience.exhausted(len(self._queue), self._clock())):
            self.end(PeerTimeout(self.peer, what))
            raise PeerLost(self.peer, "it has stopped reading")
        self._channel = self._channel % 0xFFFF_FFFF + 1
        writer = FrameWriter(message, self._channel, self._coding)
        if self._queue or not writer.is_single or self._undrained_bytes > MAX_UNDRAINED_BYTES:
            self._queue.append((writer.turns(), writer.num_bytes))
            self.patience.waiting_bytes += writer.num_bytes
        else:
            self._write(*next(writer.turns()))
        if self._queue or self._undrained_bytes > MAX_UNDRAINED_BYTES:
            self._wake.set()

    def end(self, error: PeerError) -> None:
        """Stop using the link now; `run` returns."""
        if self.error is None:
            self.error = error
            for task in self._tasks:
                task.cancel()
            self._pings.cancel()

    @property
    def begun_bytes(self) -> int:
        """Memory of messages that the peer has begun and not ended."""
        return self._assembler.begun_bytes

    async def greet(self, software: str) -> None:
        """Exchange `Hello`; raises PeerMisbehaved or PeerLost. The caller sets the deadline."""
        write_hello(self.stream, os.urandom(NONCE_BYTES), software=software)
        self._channel = FIRST_CHANNEL
        await read_hello(self.stream)

    def watch(self, interval_s: float, timeout_s: float) -> None:
        """Run a heartbeat from now on: no answer for ``timeout_s`` ends the link."""
        if self._watch_times is None:
            self._watch_times = interval_s, timeout_s
            if self._group is not None and self.error is None:
                self._start(self._group, self._heartbeat(interval_s, timeout_s))

    def ping(self) -> asyncio.Future[float]:
        """Ask for a sign of life: the round trip in seconds; cancelled when the link ends.

        Raises PeerLost when the link is gone. The caller sets the deadline.
        """
        return self._pings.answer(self._send_ping())

    async def run(self) -> None:
        """Receive and send until the link ends."""
        self.received_at = self._clock()
        try:
            if self.error is None:  # else it was ended before it ran
                async with asyncio.TaskGroup() as group:
                    self._group = group
                    self._start(group, self._receive())
                    self._start(group, self._pump())
                    if self._watch_times is not None:
                        self._start(group, self._heartbeat(*self._watch_times))
        finally:
            error = self.error or PeerLost(self.peer, "we closed the link")
            self.end(error)
            self.stream.close()
            self._events.on_lost(self, error)

    def _start(self, group: asyncio.TaskGroup, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(group.create_task(work, name=f"link-{self.peer.short}"))

    async def finish(self) -> None:
        """Send what waits and the END frame; the caller sets the deadline."""
        if self.error is not None:
            return
        while self._queue:
            await self._send_turn()
        self._write(end_frame())
        await self.stream.drain()

    def _write(self, *pieces: bytes | memoryview) -> None:
        self.stream.write(*pieces)
        num_bytes = sum(map(len, pieces))
        self._undrained_bytes += num_bytes
        self.volume.sent += num_bytes

    def _coding(self, tensor: Tensor) -> str:
        """How a tensor goes out."""
        return choose(
            tensor,
            lossy=self._assembler.lossy,
            up_bytes_per_s=self.uplink.bytes_per_s,
            coding_bytes_per_s=self.uplink.coding_bytes_per_s,
        )

    async def _receive(self) -> None:
        try:
            await self.stream.receive(self)
        except PeerError as error:
            self.end(error)

    def buffer(self) -> memoryview:
        """Where the next bytes go (`transport.Sink`)."""
        return self._reader.buffer()

    def filled(self, num_bytes: int) -> None:
        """Bytes came (`transport.Sink`): tell what messages they complete."""
        self.volume.received += num_bytes
        if self.error is None:
            self.received_at = self._clock()
            try:
                self._read(num_bytes)
            except WireError as error:
                self.end(PeerMisbehaved(self.peer, str(error)))
            except PeerError as error:
                self.end(error)
            self.patience.read(self._reader, self.received_at)
        if self.error is not None:
            self._reader = FrameReader(self._assembler)  # what still comes goes nowhere

    def _read(self, num_bytes: int) -> None:
        for message in self._reader.filled(num_bytes):
            self._on_message(message)
            if self.error is not None:
                return

    def _on_message(self, message: Any) -> None:
        if message is END_OF_STREAM:
            self.end(PeerLost(self.peer, "it closed the link"))
        elif isinstance(message, Ping):
            self.send(Pong(number=message.number))
        elif isinstance(message, Pong):
            self._on_pong(message)
        elif not isinstance(message, Padding):
            self._events.on_message(self, message)

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
            turns, num_bytes = self._queue.popleft()
            buffers = next(turns, None)
            if buffers is None:
                self.patience.waiting_bytes -= num_bytes
            else:
                self._write(*buffers)
                self._queue.append((turns, num_bytes))
        began = self.patience.writing_since = self._clock()
        await self.stream.drain()
        self.patience.writing_since = None
        self.uplink.sent(self._undrained_bytes, began, self._clock())
        self._undrained_bytes = 0

    def _send_ping(self) -> int:
        if self._pings.are_too_many:
            self.end(PeerTimeout(self.peer, f"{MAX_PINGS} pings without an answer"))
        number = self._pings.next()
        self.send(Ping(number=number))
        return number

    async def _heartbeat(self, interval_s: float, timeout_s: float) -> None:
        try:
            while True:
                self._send_ping()
                due_at = self._clock() + interval_s
                await asyncio.sleep(interval_s)
                if self._clock() - due_at > interval_s:
                    continue  # we were stalled ourselves: what has come meanwhile is read first
                if self._clock() - self._pings.oldest_at(due_at) > timeout_s:
                    what = f"no answer to a heartbeat for {timeout_s:g} s"
                    return self.end(PeerTimeout(self.peer, what))
        except PeerError as error:
            self.end(error)

    def _on_pong(self, pong: Pong) -> None:
        rtt_s = self._pings.on_pong(pong.number)
        if rtt_s is None:
            raise PeerMisbehaved(self.peer, f"answers a ping {pong.number} that was never sent")
        self.rtt_s = rtt_s
