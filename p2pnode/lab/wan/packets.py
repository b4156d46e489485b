"""What lines do to packets: rates, queues, delay, jitter, loss, silence. Pure: `now` is handed in.

A packet passes three things in this order:
- the sender's uplink: a queue in front of a rate; a packet that would wait longer than `queue_s`
  is dropped (tail drop);
- the line between the two: lost, slowed down or late;
- the receiver's downlink, a queue and a rate like the first.

Packets of one direction between two machines keep their order, whatever the jitter, unless the
line says otherwise: otherwise TCP would see losses that no line had.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import random

MIN_PACKET_BYTES = 20
_TARGET = slice(16, 20)
"""Where an IPv4 packet has its destination."""

Jitter = Literal["uniform", "normal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a machine is connected: its own uplink and downlink."""

    up_bytes_per_s: float = math.inf
    down_bytes_per_s: float = math.inf
    queue_s: float = 0.2
    """The longest wait in front of either; packets that would wait longer are dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One direction between two machines."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    """``uniform``: late or early by up to this; ``normal``: its standard deviation. Never < 0."""
    jitter: Jitter = "uniform"
    bytes_per_s: float = math.inf
    """Of this direction alone, beside the machines' own rates; its queue is the sender's."""
    loss: float = 0.0
    """The share of packets that vanish."""
    is_silent: bool = False
    """Nothing is sent any more; what is under way arrives."""
    reorders: bool = False
    """Jitter may let packets overtake each other."""


@dataclass(slots=True)
class Counts:
    """What has happened to packets so far."""

    delivered: int = 0
    delivered_bytes: int = 0
    lost: int = 0
    """By the lines' loss."""
    dropped: int = 0
    """For want of room in a queue."""
    silenced: int = 0
    stray: int = 0
    """Not IPv4, or for an address that nobody has."""


@dataclass(slots=True)
class _Machine:
    access: Access
    up_free_at: float = 0.0
    down_free_at: float = 0.0


@dataclass(slots=True)
class _Line:
    line: Line
    free_at: float = 0.0
    last_arrival: float = 0.0


class Weather:
    """All lines and queues. Machines are named by the 4 bytes of their address."""

    def __init__(self, rng: random.Random) -> None:
        self.counts = Counts()
        self._rng = rng
        self._machines: dict[bytes, _Machine] = {}
        self._lines: dict[tuple[bytes, bytes], _Line] = {}
        # (when, number, receiver, packet, whether it has passed the receiver's downlink)
        self._events: list[tuple[float, int, bytes, bytes, bool]] = []
        self._number = 0

    def attach(self, address: bytes, access: Access) -> None:
        """A machine exists, or its access changes; its queues stay as they are."""
        if address in self._machines:
            self._machines[address].access = access
        else:
            self._machines[address] = _Machine(access)

    def detach(self, address: bytes) -> None:
        """A machine is gone, with what is under way to it."""
        self._machines.pop(address, None)

    def set_line(self, sender: bytes, receiver: bytes, line: Line) -> None:
        """From now on; packets under way keep their time."""
        self._state(sender, receiver).line = line

    def line(self, sender: bytes, receiver: bytes) -> Line:
        """The direction from one to the other as it is now."""
        return self._state(sender, receiver).line

    def accept(self, packet: bytes, sender: bytes, now: float) -> None:
        """A machine sends an IPv4 packet: decide whether and when it reaches the other end."""
        receiver = packet[_TARGET]
        machine = self._machines.get(sender)
        is_v4 = len(packet) >= MIN_PACKET_BYTES and packet[0] >> 4 == 4
        if machine is None or not is_v4 or receiver not in self._machines:
            self.counts.stray += 1
            return
        access = machine.access
        starts = max(now, machine.up_free_at)
        if starts - now > access.queue_s:
            self.counts.dropped += 1
            return
        sent = machine.up_free_at = starts + len(packet) / access.up_bytes_per_s
        state = self._lines.get((sender, receiver)) or self._state(sender, receiver)
        line = state.line
        if line.is_silent:
            self.counts.silenced += 1
            return
        if line.loss and self._rng.random() < line.loss:
            self.counts.lost += 1
            return
        if line.bytes_per_s != math.inf:
            starts = max(sent, state.free_at)
            if starts - sent > access.queue_s:
                self.counts.dropped += 1
                return
            sent = state.free_at = starts + len(packet) / line.bytes_per_s
        arrives = sent + (self._late_s(line) if line.jitter_s else line.delay_s)
        if not line.reorders:
            arrives = state.last_arrival = max(arrives, state.last_arrival)
        self._push(arrives, receiver, packet, False)

    def due(self, now: float) -> list[tuple[bytes, bytes]]:
        """What has reached its receiver by now: (address, packet), in order; each once."""
        ready = []
        events = self._events
        while events and events[0][0] <= now:
            at, _, receiver, packet, is_through = heapq.heappop(events)
            machine = self._machines.get(receiver)
            if machine is None:
                continue
            if not is_through:
                through = self._descend(machine, len(packet), at)
                if through is None:
                    continue
                if through > now:
                    self._push(through, receiver, packet, True)
                    continue
            ready.append((receiver, packet))
            self.counts.delivered += 1
            self.counts.delivered_bytes += len(packet)
        return ready

    @property
    def next_due(self) -> float:
        """When `due` should be asked again; infinity when nothing is under way."""
        return self._events[0][0] if self._events else math.inf

    def _descend(self, machine: _Machine, num_bytes: int, now: float) -> float | None:
        """When a packet that arrives has passed the downlink; None: there is no room."""
        access = machine.access
        starts = max(now, machine.down_free_at)
        if starts - now > access.queue_s:
            self.counts.dropped += 1
            return None
        machine.down_free_at = starts + num_bytes / access.down_bytes_per_s
        return machine.down_free_at

    def _late_s(self, line: Line) -> float:
        if line.jitter == "normal":
            return max(0.0, self._rng.gauss(line.delay_s, line.jitter_s))
        return max(0.0, line.delay_s + self._rng.uniform(-line.jitter_s, line.jitter_s))

    def _push(self, at: float, receiver: bytes, packet: bytes, is_through: bool) -> None:
        self._number += 1
        heapq.heappush(self._events, (at, self._number, receiver, packet, is_through))

    def _state(self, sender: bytes, receiver: bytes) -> _Line:
        return self._lines.setdefault((sender, receiver), _Line(Line()))
