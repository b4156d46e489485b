"""A swarm in this process: real nodes and clients over an in-memory network and directory.

Everything but the sockets is the real thing: links, handlers, compute threads, blocks, records.
On a `VirtualTimeLoop` the network's latencies take no real time.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from p2pnode.client.client import Client
from p2pnode.config import ClientConfig, NodeConfig
from p2pnode.dht.admits import everybody
from p2pnode.dht.memory import MemoryDht
from p2pnode.errors import DaemonDied
from p2pnode.lab.conditions import Conditions, LabBlock
from p2pnode.lab.member import LabMember
from p2pnode.lab.members import Club
from p2pnode.lab.reference import whole_block
from p2pnode.model.block import Block
from p2pnode.model.device import Device
from p2pnode.model.source import find_model
from p2pnode.model.spec import read_spec
from p2pnode.net.identity import Identity
from p2pnode.net.memory import Line, MemoryNetwork, fake_identity
from p2pnode.node.figures import CHUNK_TOKENS, Figures, session_bytes_per_token
from p2pnode.node.server import BlockServer
from p2pnode.tasks import Tasks
from p2pnode.types import LayerRange, PeerId

T = TypeVar("T")

EPOCH_S = 1.8e9
"""The wall clock of the lab when its loop's clock is at 0."""
FIRST_CLIENT = 1000


@dataclass(slots=True, eq=False)
class LabNode:
    """One node of a `LocalSwarm`."""

    peer: PeerId
    layers: LayerRange
    home: Path
    """Where it may write; a folder of its own."""
    conditions: Conditions = field(default_factory=Conditions)
    clock_offset_s: float = 0.0
    """How far its wall clock is ahead of the lab's."""
    is_serving: asyncio.Event = field(default_factory=asyncio.Event)
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    """Set it, and the node leaves when its sessions have moved."""
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    open_hops: Counter[int] = field(default_factory=Counter)
    """How many sessions are open here, by their first layer."""

    def on_event(self, event: str, fields: dict[str, Any]) -> None:
        """Keep what the node says (`OnEvent`)."""
        self.events.append((event, fields))
        if event == "serving":
            self.is_serving.set()
        elif event == "session_opened":
            self.open_hops[LayerRange.parse(fields["layers"]).start] += 1
        elif event == "session_closed":
            self.open_hops[LayerRange.parse(fields["layers"]).start] -= 1


class LocalSwarm:
    """Nodes that serve parts of one model folder. ``async with`` owns them."""

    def __init__(
        self,
        folder: Path,
        *,
        cache: Path,
        dtype: str = "float32",
        seed: int = 0,
        latency_s: float = 0.0,
        bytes_per_s: float = math.inf,
        config: dict[str, Any] | None = None,
        club: Club | None = None,
    ) -> None:
        """latency_s, bytes_per_s: of each direction between two peers
        club: the members, where the swarm is a private one
        config: settings of `NodeConfig` and `ClientConfig`; those of one are not the other's."""
        unknown = (config or {}).keys() - _names(NodeConfig) - _names(ClientConfig)
        if unknown:
            raise ValueError(f"neither nodes nor clients have a setting {', '.join(unknown)}")
        files = find_model(str(folder), cache=cache)
        self.folder = files.folder
        self.spec = read_spec(files.folder, files.name, files.fingerprint)
        self.dtype = dtype
        self.quant = ""
        """How nodes that are started from now on quantise their weights."""
        self.nodes: list[LabNode] = []
        line = Line(latency_s=latency_s, bytes_per_s=bytes_per_s)
        self.network = MemoryNetwork(seed=seed, line=line)
        self.club = club
        self.dht = MemoryDht(
            clock=self.wall_clock,
            latency_s=latency_s,
            admits=everybody if club is None else club.admits,
        )
        self._seed = seed
        self._config = {"wall_clock": self.wall_clock, "cache": cache, **(config or {})}
        self.client_peers: list[PeerId] = []
        self._tasks = Tasks()
        self._homes: tempfile.TemporaryDirectory[str]

    def wall_clock(self) -> float:
        """Seconds since the epoch, moving with the loop's clock."""
        return EPOCH_S + asyncio.get_running_loop().time()

    async def __aenter__(self) -> Self:
        self._homes = tempfile.TemporaryDirectory(prefix="p2pnode-lab-")
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            self._homes.cleanup()

    async def start(self, *ranges: str, latency_s: float = 0.001) -> list[LabNode]:
        """Start a node per range (``"0-8"``) and wait until all are announced."""
        started = [self.add(LayerRange.parse(text), latency_s=latency_s) for text in ranges]
        for node in started:
            await node.is_serving.wait()
        return started

    def add(
        self,
        layers: LayerRange,
        *,
        latency_s: float = 0.001,
        compute_s: float = 0.0,
        token_s: float = 0.0,
        clock_offset_s: float = 0.0,
    ) -> LabNode:
        """Start a node; `LabNode.is_serving` is set when it is announced.

        latency_s: what it announces as its time for a step, while ``token_s`` is 0
        compute_s, token_s: what steps take it, see `Conditions`; with ``token_s`` it announces that
        """
        number = len(self.nodes)
        identity = fake_identity(number)
        conditions = Conditions(compute_s=compute_s, token_s=token_s)
        conditions.use(asyncio.get_running_loop())
        node = LabNode(
            identity.peer,
            layers,
            Path(self._homes.name) / f"node-{number}",
            conditions,
            clock_offset_s,
        )
        node.home.mkdir()
        own = {
            "cache": node.home,
            "wall_clock": lambda: self.wall_clock() + node.clock_offset_s,
        }
        config = _config(NodeConfig, {**self._config, **own})
        whole = whole_block(self.folder, self.spec, self.dtype, self.quant)
        block = LabBlock(whole.part(layers), conditions)
        figures = lab_figures(block, conditions.forward_s(1) if token_s else latency_s)
        if token_s:
            figures = dataclasses.replace(figures, chunk_s=conditions.forward_s(CHUNK_TOKENS))
        server = BlockServer(block, figures, config, node.on_event, node.leaving)
        self.nodes.append(node)
        self._tasks.start(self._run(server, identity, conditions), name=f"node-{node.peer.short}")
        return node

    async def _run(self, server: BlockServer, identity: Identity, conditions: Conditions) -> None:
        try:
            async with LabMember(self, identity, conditions).join() as joined:
                await server.run(joined)
        except DaemonDied:
            return  # killed by `kill`

    def node(self, peer: PeerId) -> LabNode:
        """The node of that id."""
        return next(node for node in self.nodes if node.peer == peer)

    def kill(self, node: LabNode) -> None:
        """SIGKILL: no good-bye, no withdrawal; the announcement lives on until it expires."""
        if node.peer in self.network.transports:
            self.dht.cut_off(node.peer)
            self.network.kill(node.peer)

    def freeze(self, node: LabNode) -> None:
        """SIGSTOP, until `thaw`: it accepts everything and does nothing."""
        self.dht.cut_off(node.peer)
        self.network.freeze(node.peer)

    def thaw(self, node: LabNode) -> None:
        """SIGCONT."""
        self.dht.reconnect(node.peer)
        self.network.thaw(node.peer)

    def cut_off(self, *nodes: LabNode) -> None:
        """Nothing from these nodes reaches anybody else, nor the other way, until `reconnect`."""
        cut = {node.peer for node in nodes}
        everybody = {node.peer for node in self.nodes} | set(self.client_peers)
        for peer in cut:
            self.dht.cut_off(peer)
        self.network.partition(cut, everybody - cut)

    def reconnect(self, *nodes: LabNode) -> None:
        """Undo `cut_off`; what was sent meanwhile arrives now, where streams still stand."""
        for node in nodes:
            self.dht.reconnect(node.peer)
        self.network.heal([node.peer for node in nodes])

    def client(self, kind: type[Client] = Client, **options: Any) -> Client:
        """A client of this swarm, to be entered with ``async with``; of that class."""
        identity = self._next_client()
        config = _config(ClientConfig, self._config)
        member = LabMember(self, identity)
        client = kind(model=str(self.folder), config=config, network=member, **options)
        # Which of several equal peers it takes must be the same in each run.
        client._experience.rng = random.Random(f"{self._seed}/{identity.peer}")
        return client

    def guest(self) -> LabMember:
        """The network of someone who asks and serves nothing, for another program than `Client`."""
        return LabMember(self, self._next_client())

    def _next_client(self) -> Identity:
        identity = fake_identity(FIRST_CLIENT + len(self.client_peers))
        self.client_peers.append(identity.peer)
        return identity


def lab_figures(block: Block, latency_s: float, *, capacity_tokens: int = 1 << 16) -> Figures:
    """Figures as if measured: given, so that scenarios are repeatable."""
    device = Device(kind="cpu", name="lab", total_bytes=1 << 34, free_bytes=1 << 33)
    return Figures(
        device=device,
        flops_per_s=1e9,
        memory_bytes_per_s=1e9,
        latency_s=latency_s,
        chunk_s=latency_s,
        tokens_per_s=1.0 / latency_s,
        kv_capacity_tokens=capacity_tokens,
        bytes_per_token=session_bytes_per_token(block),
    )


def _config(cls: type[T], values: dict[str, Any]) -> T:
    """A config of that class from those of the values that it knows."""
    known = _names(cls)
    return cls(**{name: value for name, value in values.items() if name in known})


def _names(cls: type[Any]) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}


def split(num_layers: int, parts: int) -> Sequence[str]:
    """Ranges of about the same length that cover all layers: ``["0-2", "3-5", ...]``."""
    edges = [round(part * num_layers / parts) for part in range(parts + 1)]
    return [str(LayerRange(start, stop)) for start, stop in itertools.pairwise(edges)]
