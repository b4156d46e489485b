"""Streams of the in-memory network: two ends, and a pipe for the bytes of each direction.

Rules, the bad habits of p2pd: a reset reads as a clean end; writes to a peer that reads nothing
are accepted until `HIGH_WATER_BYTES` wait, then `drain` blocks; silence is never noticed here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from p2pnode.errors import PeerLost
from p2pnode.net.transport import Sink
from p2pnode.types import PeerId

HIGH_WATER_BYTES = 1_200_000
LOW_WATER_BYTES = 300_000


class Weather(Protocol):
    """What the pipes must know of the network."""

    loses_on_close: bool
    """Whether closing a stream drops what is in flight, as QUIC may."""

    def arrival(self, sender: PeerId, receiver: PeerId, num_bytes: int) -> float:
        """When bytes that are sent now arrive, in the loop's time."""
        ...

    def is_held(self, sender: PeerId) -> bool:
        """Whether what the sender writes stays in its process: it is frozen."""
        ...

    def is_blocked(self, sender: PeerId, receiver: PeerId) -> bool:
        """Whether bytes on their way cannot be handed over now."""
        ...

    def forget(self, stream: MemoryStream) -> None:
        """This end of a stream is closed."""
        ...


class Pipe:
    """Bytes on their way from one end of a stream to the other, in order."""

    def __init__(self, weather: Weather, sender: PeerId, target: MemoryStream) -> None:
        self.num_bytes = 0
        """Written and not yet read."""
        self.sender = sender
        self.target = target
        self._weather = weather
        self._held: list[bytes] = []
        self._in_flight: deque[tuple[float, bytes | None]] = deque()
        self._last_arrival = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()

    def send(self, data: bytes) -> None:
        """Let bytes travel."""
        self.num_bytes += len(data)
        if self._weather.is_held(self.sender):
            self._held.append(data)
        else:
            self._put(data)

    def send_end(self, *, drops_in_flight: bool = False) -> None:
        """Let the end of the stream travel, after what is in flight or instead of it."""
        self._held.clear()
        if drops_in_flight:
            self._in_flight.clear()
        self._put(None)

    def release(self) -> None:
        """The sender is thawed: what it wrote meanwhile leaves."""
        held, self._held = self._held, []
        for data in held:
            self._put(data)

    def resume(self, delay_s: float = 0.0) -> None:
        """The way is free again: what waited at the end of it arrives after ``delay_s``."""
        if self._in_flight and self._timer is None:
            now = asyncio.get_running_loop().time()
            self._schedule(max(now + delay_s, self._in_flight[0][0]))

    async def wait_for_room(self) -> None:
        """Return when little is unread, or nobody will read it."""
        if self.num_bytes <= HIGH_WATER_BYTES:
            return
        while self.num_bytes > LOW_WATER_BYTES:
            self._room.clear()
            await self._room.wait()

    def on_read(self, num_bytes: int) -> None:
        """The receiver took bytes out."""
        self.num_bytes -= num_bytes
        if self.num_bytes <= LOW_WATER_BYTES:
            self._room.set()

    def discard(self) -> None:
        """Nobody will read: free the writer, who waits for room."""
        self.num_bytes = 0
        self._room.set()

    def _put(self, data: bytes | None) -> None:
        arrival = self._weather.arrival(self.sender, self.target.local, len(data or b""))
        self._last_arrival = max(self._last_arrival, arrival)
        self._in_flight.append((self._last_arrival, data))
        if len(self._in_flight) == 1 and self._timer is None:
            self._schedule(self._last_arrival)

    def _schedule(self, when: float) -> None:
        self._timer = asyncio.get_running_loop().call_at(when, self._deliver, when)

    def _deliver(self, until: float) -> None:
        self._timer = None
        if self._weather.is_blocked(self.sender, self.target.local):
            return
        while self._in_flight and self._in_flight[0][0] <= until:
            self.target.arrive(self._in_flight.popleft()[1])
        if self._in_flight:
            self._schedule(self._in_flight[0][0])


class MemoryStream:
    """One end of a stream (`transport.ByteStream`)."""

    def __init__(self, weather: Weather, local: PeerId, peer: PeerId, protocol: str) -> None:
        self.local = local
        self.protocol = protocol
        self.outbound: Pipe
        self.inbound: Pipe
        self._weather = weather
        self._peer = peer
        self._received = bytearray()
        self._readable = asyncio.Event()
        self._is_ended = False
        self._is_closed = False

    @classmethod
    def pair(
        cls, weather: Weather, opener: PeerId, acceptor: PeerId, protocol: str
    ) -> tuple[MemoryStream, MemoryStream]:
        """Both ends of a new stream, the opener's first."""
        near = cls(weather, opener, acceptor, protocol)
        far = cls(weather, acceptor, opener, protocol)
        near.outbound = far.inbound = Pipe(weather, opener, far)
        far.outbound = near.inbound = Pipe(weather, acceptor, near)
        return near, far

    @property
    def peer(self) -> PeerId:
        """Who is at the other end."""
        return self._peer

    async def read_exactly(self, num_bytes: int) -> bytes:
        """Read so many bytes; raises PeerLost when the stream ends before."""
        while len(self._received) < num_bytes or self._is_closed:
            self._check_open()
            self._readable.clear()
            await self._readable.wait()
        data = bytes(self._received[:num_bytes])
        del self._received[:num_bytes]
        self.inbound.on_read(num_bytes)
        return data

    async def receive(self, sink: Sink) -> None:
        """See `transport.ByteStream.receive`."""
        while True:
            while self._received and not self._is_closed:
                buffer = sink.buffer()
                size = min(len(buffer), len(self._received))
                buffer[:size] = self._received[:size]
                del self._received[:size]
                self.inbound.on_read(size)
                sink.filled(size)
            self._check_open()
            self._readable.clear()
            await self._readable.wait()

    def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Send without waiting; raises PeerLost when the stream has ended or was closed."""
        self._check_open()
        data = b"".join(pieces)
        if data:
            self.outbound.send(data)

    async def drain(self) -> None:
        """Wait until little is unread; raises PeerLost."""
        self._check_open()
        await self.outbound.wait_for_room()
        self._check_open()

    def close(self) -> None:
        """Close at once; the other end reads the rest, or not, and then the end."""
        self.abandon(drops_in_flight=self._weather.loses_on_close)

    def abandon(self, *, drops_in_flight: bool = False) -> None:
        """Close because our process is dead; what the daemon has sent still arrives."""
        if self._is_closed:
            return
        self._is_closed = True
        self.outbound.send_end(drops_in_flight=drops_in_flight)
        self._received.clear()
        self._readable.set()
        self.outbound.discard()
        self._weather.forget(self)

    def arrive(self, data: bytes | None) -> None:
        """Bytes arrive; None is the end of the stream."""
        if data is None:
            self._is_ended = True
            self.outbound.discard()
        elif not (self._is_closed or self._is_ended):
            self._received += data
        self._readable.set()

    def _check_open(self) -> None:
        if self._is_closed:
            raise PeerLost(self._peer, "the stream is closed")
        if self._is_ended:
            raise PeerLost(self._peer, "the stream ended")
