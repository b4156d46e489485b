"""The least that a chain costs on the lab's lines: plain sockets in the same namespaces.

``python -m p2pnode.lab.wan.floor`` prints the port that it listens on and takes one `Next`, then
any number of `Send`. A relay reads a frame, hands it to a thread, and that one sends as many bytes
on as its `Next` says; whoever is told to `Send` is the client, and says how long each of its frames
took to come around. No event loop, no encryption, no model: blocking sockets without Nagle's delay.
"""

from __future__ import annotations

import json
import queue
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from p2pnode.errors import LocalError
from p2pnode.lab.wan.records import decode

LENGTH = struct.Struct("<I")
CONNECT_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """Where frames go from here."""

    host: str
    port: int
    num_bytes: int
    """Of each of them."""
    is_client: bool = False
    """Whether frames begin and end here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send so many frames, one after the other; answered with ``times``."""

    num_frames: int


KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Next, Send)}


def main() -> None:
    """The program."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        _say("port", port=server.getsockname()[1])
        following = _command()
        if not isinstance(following, Next):
            raise LocalError("the first command says where frames go")
        ahead = socket.create_connection((following.host, following.port), CONNECT_WITHIN_S)
        behind, _ = server.accept()
    for each in (ahead, behind):
        each.settimeout(None)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    frame = LENGTH.pack(following.num_bytes) + bytes(following.num_bytes)
    with ahead, behind:
        if following.is_client:
            _send(ahead, behind, frame)
        else:
            _relay(ahead, behind, frame)


def _relay(ahead: socket.socket, behind: socket.socket, frame: bytes) -> None:
    jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def work() -> None:
        while jobs.get():
            ahead.sendall(frame)

    threading.Thread(target=work, daemon=True).start()
    while data := _read(behind):
        jobs.put(data)


def _send(ahead: socket.socket, behind: socket.socket, frame: bytes) -> None:
    while isinstance(command := _command(), Send):
        times = []
        for _ in range(command.num_frames):
            began = time.perf_counter()
            ahead.sendall(frame)
            _read(behind)
            times.append(time.perf_counter() - began)
        _say("times", times_s=times)


def _read(stream: socket.socket) -> bytes:
    """The next frame's bytes; empty at the end of the stream."""
    prefix = _exactly(stream, LENGTH.size)
    return _exactly(stream, LENGTH.unpack(prefix)[0]) if prefix else b""


def _exactly(stream: socket.socket, num_bytes: int) -> bytes:
    data = bytearray(num_bytes)
    view, got = memoryview(data), 0
    while got < num_bytes:
        more = stream.recv_into(view[got:])
        if not more:
            return b""
        got += more
    return bytes(data)


def _command() -> Any:
    line = sys.stdin.readline()
    return decode(line.encode(), KINDS) if line else None


def _say(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
