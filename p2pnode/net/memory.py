"""A network in one process: many peers, latency, rates, loss, partitions, deaths; no sockets.

For tests and scenarios on virtual time. Deterministic: the same seed gives the same run. It has
the bad habits of p2pd (see `net.memory_stream`), and a few rules of its own:
- a dead peer's streams read as ended at the others, after the latency;
- between peers that cannot hear each other streams end after `BLACK_HOLE_S`;
- who was connected to a peer that was killed takes its next incarnation for connected, too, until
  a stream fails;
- a frozen peer accepts connections, streams and bytes, and does nothing until it is thawed.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import math
import random
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import permutations, product

from p2pnode.net.identity import Identity
from p2pnode.net.memory_stream import MemoryStream, Pipe
from p2pnode.net.memory_transport import MemoryTransport
from p2pnode.types import PeerId

BLACK_HOLE_S = 30.0
MIN_RETRANSMIT_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One direction between two peers."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    """Each write is late by up to this much more, evenly spread."""
    bytes_per_s: float = math.inf
    """Shared by all streams of the pair."""
    loss: float = 0.0
    """The share of writes that must be sent again, and so come late."""


class MemoryNetwork:
    """The ether. `transport` makes each peer's place on it."""

    def __init__(
        self, *, seed: int = 0, line: Line | None = None, loses_on_close: bool = False
    ) -> None:
        self.bytes_sent: Counter[tuple[PeerId, PeerId]] = Counter()
        self.streams_opened: Counter[tuple[PeerId, PeerId, str]] = Counter()
        self.loses_on_close = loses_on_close
        self.transports: dict[PeerId, MemoryTransport] = {}
        """The living ones."""
        self._seed = seed
        self._line = line or Line()
        self._lines: dict[tuple[PeerId, PeerId], Line] = {}
        self._free_at: dict[tuple[PeerId, PeerId], float] = {}
        self._random: dict[tuple[PeerId, PeerId], random.Random] = {}
        self._silenced: dict[tuple[PeerId, PeerId], asyncio.TimerHandle] = {}
        self._frozen: dict[PeerId, asyncio.Event] = {}
        self._hidden: set[PeerId] = set()
        self._connected: set[frozenset[PeerId]] = set()
        self._stale: set[tuple[PeerId, PeerId]] = set()
        """Who holds a connection to whom that only looks like one."""
        self._streams: dict[MemoryStream, None] = {}
        self._num_transports = 0

    def transport(self, peer: PeerId) -> MemoryTransport:
        """A place for that peer; ``async with`` it. Again after its death: a restart."""
        self._num_transports += 1
        return MemoryTransport(self, peer, self._num_transports)

    # --- the weather, set by scenarios

    def set_line(self, a: PeerId, b: PeerId, line: Line) -> None:
        """Both directions between two peers."""
        self.set_one_way(a, b, line)
        self.set_one_way(b, a, line)

    def set_one_way(self, sender: PeerId, receiver: PeerId, line: Line) -> None:
        """The direction from one peer to another."""
        self._lines[sender, receiver] = line

    def silence(self, sender: PeerId, receiver: PeerId) -> None:
        """Nothing from one reaches the other until `heal`."""
        if (sender, receiver) not in self._silenced:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(BLACK_HOLE_S, self._disconnect, sender, receiver)
            self._silenced[sender, receiver] = timer

    def partition(self, *sides: Collection[PeerId]) -> None:
        """Peers of different sides cannot hear each other until `heal`."""
        for ours, theirs in permutations(sides, 2):
            for sender, receiver in product(ours, theirs):
                self.silence(sender, receiver)

    def heal(self, peers: Collection[PeerId] | None = None) -> None:
        """These peers (None: all) hear everybody again; what was sent meanwhile arrives now."""
        for pair in list(self._silenced):
            if peers is None or not set(peers).isdisjoint(pair):
                self._silenced.pop(pair).cancel()
        for pipe in self._pipes():
            pipe.resume(self.line(pipe.sender, pipe.target.local).latency_s)

    def kill(self, peer: PeerId) -> None:
        """SIGKILL: its streams end, its tasks are cancelled, its `wait_closed` raises."""
        self.thaw(peer)
        self.transports[peer].die()

    def freeze(self, peer: PeerId) -> None:
        """SIGSTOP: it accepts everything and does nothing until `thaw`."""
        self._frozen.setdefault(peer, asyncio.Event())

    def thaw(self, peer: PeerId) -> None:
        """SIGCONT: what waited at the peer, and in it, goes on."""
        frozen = self._frozen.pop(peer, None)
        if frozen is None:
            return
        frozen.set()
        for pipe in self._pipes():
            if pipe.sender == peer:
                pipe.release()
            pipe.resume()

    def hide(self, peer: PeerId) -> None:
        """Put a peer behind a NAT for good: it can dial, and nobody can dial it."""
        self._hidden.add(peer)

    # --- what pipes and transports ask

    def line(self, sender: PeerId, receiver: PeerId) -> Line:
        """The direction from one peer to another."""
        return self._lines.get((sender, receiver), self._line)

    def arrival(self, sender: PeerId, receiver: PeerId, num_bytes: int) -> float:
        """When bytes that are sent now arrive, in the loop's time."""
        pair = (sender, receiver)
        line = self.line(sender, receiver)
        self.bytes_sent[pair] += num_bytes
        free_at = max(asyncio.get_running_loop().time(), self._free_at.get(pair, 0.0))
        free_at += num_bytes / line.bytes_per_s
        self._free_at[pair] = free_at
        return free_at + self.delay_s(sender, receiver)

    def delay_s(self, sender: PeerId, receiver: PeerId) -> float:
        """How long the next packet travels: latency, jitter, and loss as a later copy."""
        line = self.line(sender, receiver)
        delay_s = line.latency_s
        if line.jitter_s or line.loss:
            rng = self._rng(sender, receiver)
            delay_s += rng.random() * line.jitter_s
            if rng.random() < line.loss:
                delay_s += max(MIN_RETRANSMIT_S, 2 * line.latency_s)
        return delay_s

    def is_held(self, sender: PeerId) -> bool:
        """Whether the sender is frozen."""
        return sender in self._frozen

    def is_blocked(self, sender: PeerId, receiver: PeerId) -> bool:
        """Whether nothing from the sender reaches the receiver's code now."""
        return receiver in self._frozen or self.is_silent(sender, receiver)

    def is_silent(self, sender: PeerId, receiver: PeerId) -> bool:
        """Whether nothing from the sender reaches the receiver's machine now."""
        return (sender, receiver) in self._silenced

    def is_hidden(self, peer: PeerId) -> bool:
        """Whether dials to the peer are lost on their way."""
        return peer in self._hidden

    async def until_thawed(self, peer: PeerId) -> None:
        """Return when the peer may run."""
        while peer in self._frozen:
            await self._frozen[peer].wait()

    def are_connected(self, a: PeerId, b: PeerId) -> bool:
        """Whether the first takes itself for connected to the second."""
        return frozenset((a, b)) in self._connected or self.is_stale(a, b)

    def is_stale(self, a: PeerId, b: PeerId) -> bool:
        """Whether the first is connected to a dead incarnation of the second, which lives."""
        return (a, b) in self._stale and b in self.transports

    def connected_to(self, peer: PeerId) -> list[PeerId]:
        """Who is connected to a peer, in an order that is the same in each run."""
        pairs = [pair for pair in self._connected if peer in pair]
        return sorted(other for pair in pairs for other in pair if other != peer)

    def connect(self, a: PeerId, b: PeerId) -> None:
        """A dial succeeded."""
        self._connected.add(frozenset((a, b)))

    def disconnect(self, a: PeerId, b: PeerId) -> None:
        """The first drops all that it has to the second."""
        self._stale.discard((a, b))
        self._disconnect(a, b)

    def open_pair(self, opener: PeerId, acceptor: PeerId, protocol: str) -> MemoryStream:
        """A new stream: the acceptor's handler starts, the opener's end is returned."""
        self.streams_opened[opener, acceptor, protocol] += 1
        near, far = MemoryStream.pair(self, opener, acceptor, protocol)
        self._streams[near] = self._streams[far] = None
        self.transports[acceptor].accept(far)
        return near

    def cut(self, peer: PeerId, other: PeerId) -> None:
        """The first closes all its streams to the second."""
        for stream in [s for s in self._streams if (s.local, s.peer) == (peer, other)]:
            stream.close()

    def forget(self, stream: MemoryStream) -> None:
        """That end of a stream is closed."""
        self._streams.pop(stream, None)

    def leave(self, peer: PeerId, *, is_killed: bool) -> None:
        """The peer is gone: end its streams here at once, and elsewhere after the latency."""
        self.transports.pop(peer, None)
        if is_killed:
            self._stale.update((other, peer) for other in self.connected_to(peer))
        self._stale = {(who, whom) for who, whom in self._stale if who != peer}
        self._connected = {pair for pair in self._connected if peer not in pair}
        for stream in [stream for stream in self._streams if stream.local == peer]:
            if is_killed:
                stream.abandon()
            else:
                stream.close()

    # --- helpers

    def _disconnect(self, a: PeerId, b: PeerId) -> None:
        """The daemons give up: both ends of every stream between the two are gone."""
        self._connected.discard(frozenset((a, b)))
        for stream in [s for s in self._streams if {s.local, s.peer} == {a, b}]:
            stream.arrive(None)

    def _pipes(self) -> Iterable[Pipe]:
        # A pipe outlives its sender's end, so it is found at the receiver's.
        return [stream.inbound for stream in self._streams]

    def _rng(self, sender: PeerId, receiver: PeerId) -> random.Random:
        # One per direction: traffic elsewhere does not change what happens here.
        pair = (sender, receiver)
        if pair not in self._random:
            self._random[pair] = random.Random(f"{self._seed}/{sender}/{receiver}")
        return self._random[pair]


@functools.cache
def fake_identity(number: int) -> Identity:
    """The same valid identity for the same number; everybody knows its secret."""
    return Identity.from_seed(hashlib.sha256(b"p2pnode fake peer %d" % number).digest())


def fake_peer_id(number: int) -> PeerId:
    """The peer id of `fake_identity`."""
    return fake_identity(number).peer
