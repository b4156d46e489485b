"""The emulator's process: packets from the TUN device of each namespace, through the weather.

``python -m p2pnode.lab.wan.emulator SEED`` takes one command per line on stdin and answers each
with one line on stdout. It ends when stdin does. One thread; it sleeps whenever nothing is due.
"""

from __future__ import annotations

import gc
import json
import math
import os
import random
import select
import socket
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from p2pnode.errors import BadRequest
from p2pnode.lab.wan import kernel
from p2pnode.lab.wan.packets import Access, Line, Weather
from p2pnode.lab.wan.records import decode

MAX_PACKET_BYTES = 1 << 16
BURST = 64
"""Packets read of one machine before others have their turn."""
WAKING_S = 0.0003
LATE_KEPT = 1 << 14
TUN = "tun0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attach:
    """Connect a namespace to the network; again: change its access."""

    namespace: str
    address: str
    access: Access


@dataclass(frozen=True, slots=True, kw_only=True)
class Detach:
    """Take a machine away."""

    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLine:
    """Change one direction between two machines."""

    sender: str
    receiver: str
    line: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Answer with what has happened so far."""


Command = Attach | Detach | SetLine | Count
KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Attach, Detach, SetLine, Count)}


class Emulator:
    """TUN devices on one side, the weather on the other."""

    def __init__(self, rng: random.Random) -> None:
        self._weather = Weather(rng)
        self._tuns: dict[bytes, int] = {}
        self._senders: dict[int, bytes] = {}
        self._unread = b""
        self._late_s: deque[float] = deque(maxlen=LATE_KEPT)

    def run(self, commands: int, answers: int) -> None:
        """Until the commands end; both are descriptors."""
        while True:
            self._deliver()
            # select, not epoll: its timeout counts microseconds, epoll's milliseconds.
            ready, _, _ = select.select([commands, *self._senders], [], [], self._sleep_s())
            for descriptor in ready:
                if descriptor != commands:
                    self._take(descriptor)
            # Commands come last: one of them may close a device that has packets for us.
            if commands in ready and not self._obey(commands, answers):
                return

    def _sleep_s(self) -> float | None:
        """How long to sleep at most; None: until a packet or a command comes.

        A processor that has slept for long wakes up late, one that has just been busy does not. So
        a long sleep ends a little early, and a short one follows.
        """
        due = self._weather.next_due
        if due == math.inf:
            return None
        wait_s = max(0.0, due - time.monotonic())
        return wait_s if wait_s < WAKING_S else wait_s - WAKING_S

    def _deliver(self) -> None:
        due = self._weather.next_due
        now = time.monotonic()
        if due <= now:
            self._late_s.append(now - due)
        for receiver, packet in self._weather.due(now):
            try:
                os.write(self._tuns[receiver], packet)
            except OSError:  # the interface is not up yet, or no longer
                self._weather.counts.stray += 1

    def _take(self, descriptor: int) -> None:
        sender, accept = self._senders[descriptor], self._weather.accept
        for _ in range(BURST):
            try:
                packet = os.read(descriptor, MAX_PACKET_BYTES)
            except BlockingIOError:
                return
            except OSError:  # the interface is down
                return
            accept(packet, sender, time.monotonic())

    def _obey(self, commands: int, answers: int) -> bool:
        """Run what commands have come; whether there may be more."""
        data = os.read(commands, MAX_PACKET_BYTES)
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            try:
                answer = self._do(decode(line, KINDS))
            except (BadRequest, OSError) as error:
                answer = {"error": str(error)}
            os.write(answers, json.dumps(answer).encode() + b"\n")
        return bool(data)

    def _do(self, command: Command) -> dict[str, Any]:
        weather = self._weather
        match command:
            case Attach():
                self._attach(command)
            case Detach():
                address = _binary(command.address)
                weather.detach(address)
                descriptor = self._tuns.pop(address, None)
                if descriptor is not None:
                    del self._senders[descriptor]
                    os.close(descriptor)
            case SetLine():
                sender, receiver = _binary(command.sender), _binary(command.receiver)
                weather.set_line(sender, receiver, command.line)
            case Count():
                return {**asdict(weather.counts), **self._lateness(), "cpu_s": time.process_time()}
        return {}

    def _lateness(self) -> dict[str, float]:
        """By how much packets have left too late since the last look, in milliseconds."""
        late = sorted(self._late_s) or [0.0]
        self._late_s.clear()
        shares = {"late_ms_p50": 0.5, "late_ms_p95": 0.95}
        return {name: 1e3 * late[int(share * (len(late) - 1))] for name, share in shares.items()}

    def _attach(self, command: Attach) -> None:
        address = _binary(command.address)
        if address not in self._tuns:
            with kernel.visiting(command.namespace):
                descriptor = kernel.open_tun(TUN)
            self._tuns[address] = descriptor
            self._senders[descriptor] = address
        self._weather.attach(address, command.access)


def _binary(address: str) -> bytes:
    try:
        return socket.inet_aton(address)
    except OSError:
        raise BadRequest(f"{address[:40]!r} is not an IPv4 address") from None


def main() -> None:
    """The program."""
    kernel.be_punctual()
    emulator = Emulator(random.Random(int(sys.argv[1])))
    # Nothing here is cyclic, and a collection would delay packets.
    gc.disable()
    emulator.run(sys.stdin.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    main()
