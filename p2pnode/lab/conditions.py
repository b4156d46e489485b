"""What ails one node of a lab: how long it computes, out of memory, frames that come out wrong.

The node's own code is the product's. Its block (`LabBlock`) and its transport (`LabTransport`)
are the real ones with a `Conditions` beside them, which faults change while the node runs.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from p2pnode.lab.virtual_time import VirtualTimeLoop
from p2pnode.model.block import Block, Work
from p2pnode.model.cache import KVCache
from p2pnode.net.transport import ByteStream, Sink, StreamHandler, Transport
from p2pnode.serving import scheduler
from p2pnode.types import LayerRange, PeerId
from p2pnode.wire.frames import PREFIX

STEP_TOKENS = 64
"""A step of up to so many tokens takes one compute time, of twice as many two; where a token's
own time is not given."""


WHOLE_TOKENS = 1 << 15
USUAL_TOKENS = scheduler.QUIET_TOKENS, scheduler.MAX_FORWARD_TOKENS

TOLD_WITHIN_S = 1.0
"""A loop that has ended tells nobody."""


def compute_whole(*, is_whole: bool) -> None:
    """The schedulers of this process split no prefill from now on, or do so again."""
    whole = WHOLE_TOKENS, WHOLE_TOKENS
    scheduler.QUIET_TOKENS, scheduler.MAX_FORWARD_TOKENS = whole if is_whole else USUAL_TOKENS


def _call(function: Callable[..., object], *args: object) -> None:
    function(*args)


@dataclass(slots=True, eq=False)
class Conditions:
    """Faults set these; the node's block and transport look at them."""

    compute_s: float = 0.0
    """Of a step of at most `STEP_TOKENS` tokens, on whatever clock the loop has."""
    token_s: float = 0.0
    """Above 0: of each token, and ``compute_s`` once per forward, however many they are."""
    spent_s: float = 0.0
    """On all forwards so far."""
    slow_factor: float = 1.0
    oom_steps: int = 0
    """So many forwards from now on run out of memory."""
    is_corrupt: bool = False
    """Whether every frame sent has a wrong byte in what frames its content."""
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    _watchers: list[Callable[[], None]] = field(default_factory=list)
    _spend: Callable[[float], None] = time.sleep
    _call_soon: Callable[..., object] = field(default=_call)

    def use(self, loop: asyncio.AbstractEventLoop) -> None:
        """Compute on this loop's clock."""
        self._spend = loop.spend if isinstance(loop, VirtualTimeLoop) else time.sleep
        self._call_soon = loop.call_soon_threadsafe

    def watch(self, on_forward: Callable[[], None]) -> None:
        """Call it on the loop when the next forward begins, besides those who watch already."""
        self._watchers.append(on_forward)

    def forward(self, num_tokens: int) -> None:
        """A forward begins, on the compute thread; raises OutOfMemoryError when that is set."""
        self._tell_watchers()
        if self.oom_steps > 0:
            self.oom_steps -= 1
            raise torch.OutOfMemoryError("the lab has taken the memory away")
        if self.compute_s:
            compute_s = self.forward_s(num_tokens) * self.slow_factor
            self.spent_s += compute_s
            self._spend(compute_s)

    def forward_s(self, num_tokens: int) -> float:
        """What a forward of so many tokens takes, when nothing ails the node."""
        if self.token_s:
            return self.compute_s + self.token_s * num_tokens
        return self.compute_s * -(-num_tokens // STEP_TOKENS)

    def _tell_watchers(self) -> None:
        """Wait until they were told: what they change holds for this very forward."""
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            told = threading.Event()
            self._call_soon(_tell, watcher, told)
            told.wait(TOLD_WITHIN_S)


def _tell(watcher: Callable[[], None], told: threading.Event) -> None:
    try:
        watcher()
    finally:
        told.set()


class LabBlock(Block):
    """A block under conditions; shares the tensors of the one it is made from."""

    def __init__(self, block: Block, conditions: Conditions) -> None:
        super().__init__(
            block._parts, block.spec, block.layers, device=block.device, dtype=block.dtype
        )
        self.packs, self.quant, self.folder = block.packs, block.quant, block.folder
        self.num_bytes = block.num_bytes
        self.kv_bytes_per_token = block.kv_bytes_per_token
        self._block = block
        self._conditions = conditions
        self._labs: dict[LayerRange, LabBlock] = {}

    def part(self, layers: LayerRange) -> Block:
        """See `Block.part`; the same conditions."""
        if layers == self.layers:
            return self
        if layers not in self._labs:
            self._labs[layers] = LabBlock(self._block.part(layers), self._conditions)
        return self._labs[layers]

    def new_cache(self, max_tokens: int) -> KVCache:
        """See `Block.new_cache`."""
        return self._block.new_cache(max_tokens)

    def forward(self, work: Sequence[Work]) -> list[torch.Tensor]:
        """See `Block.forward`; takes the time that conditions say, or fails as they say."""
        self._conditions.forward(sum(len(part.entry) for part in work))
        return self._block.forward(work)


class LabTransport:
    """A `Transport` whose streams send what conditions make of it."""

    def __init__(self, transport: Transport, conditions: Conditions) -> None:
        self._transport = transport
        self._conditions = conditions

    @property
    def peer(self) -> PeerId:
        """See `Transport.peer`."""
        return self._transport.peer

    @property
    def addresses(self) -> tuple[str, ...]:
        """See `Transport.addresses`."""
        return self._transport.addresses

    async def connect(self, peer: PeerId, addresses: tuple[str, ...]) -> None:
        """See `Transport.connect`."""
        await self._transport.connect(peer, addresses)

    async def open_stream(self, peer: PeerId, protocol: str) -> ByteStream:
        """See `Transport.open_stream`."""
        return LabStream(await self._transport.open_stream(peer, protocol), self._conditions)

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        """See `Transport.serve`."""

        async def serve_one(stream: ByteStream) -> None:
            await handler(LabStream(stream, self._conditions))

        await self._transport.serve(protocol, serve_one)

    async def protect(self, peer: PeerId, is_protected: bool) -> None:
        """See `Transport.protect`."""
        await self._transport.protect(peer, is_protected)

    async def wait_closed(self) -> None:
        """See `Transport.wait_closed`."""
        await self._transport.wait_closed()


class LabStream:
    """A stream of frames (`ByteStream`); each can be sent with a wrong byte.

    The byte is one of the frame's length, flags or header length: what a receiver can notice.
    Wrong tensor bytes are another fault, a lie, which no framing can show.
    """

    def __init__(self, stream: ByteStream, conditions: Conditions) -> None:
        self._stream = stream
        self._conditions = conditions
        self._frame_left = 0
        """Bytes of the frame that was begun and is still to be written."""

    @property
    def peer(self) -> PeerId:
        """See `ByteStream.peer`."""
        return self._stream.peer

    async def read_exactly(self, num_bytes: int) -> bytes:
        """See `ByteStream.read_exactly`."""
        return await self._stream.read_exactly(num_bytes)

    async def receive(self, sink: Sink) -> None:
        """See `ByteStream.receive`."""
        await self._stream.receive(sink)

    def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        """See `ByteStream.write`. A frame begins at the beginning of a piece, as links do it."""
        self._stream.write(*map(self._passed, pieces))

    def _passed(self, data: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview:
        if self._frame_left > 0 or len(data) < PREFIX.size:
            self._frame_left -= len(data)
            return data
        num_bytes, *_ = PREFIX.unpack(data[: PREFIX.size])
        self._frame_left = PREFIX.size + num_bytes - len(data)
        return self._spoiled(data) if self._conditions.is_corrupt else data

    async def drain(self) -> None:
        """See `ByteStream.drain`."""
        await self._stream.drain()

    def close(self) -> None:
        """See `ByteStream.close`."""
        self._stream.close()

    def _spoiled(self, data: bytes | bytearray | memoryview) -> bytes:
        rng, spoiled = self._conditions.rng, bytearray(data)
        spoiled[rng.choice(_FRAMING)] ^= rng.randrange(1, 256)
        return bytes(spoiled)


_FRAMING = (0, 1, 2, 3, 8, 9, 10)
"""Places in a frame's prefix: its length, its flags, its header's length; not the channel."""
