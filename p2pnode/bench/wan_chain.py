"""A chain of real nodes in network namespaces, whose lines change while it runs (Linux, root)."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, Self

from p2pnode.errors import LocalError
from p2pnode.lab.presets import Link
from p2pnode.lab.scenario import CLIENT
from p2pnode.lab.wan import floor
from p2pnode.lab.wan.client import WanClient
from p2pnode.lab.wan.launcher import Launch
from p2pnode.lab.wan.machines import Duty
from p2pnode.lab.wan.node import Change
from p2pnode.lab.wan.packets import Line
from p2pnode.lab.wan.processes import Program
from p2pnode.lab.wan.swarm import BOOTSTRAP, Place, WanSwarm
from p2pnode.lab.wan.worker import Generate, Join
from p2pnode.types import LayerRange

FLOOR_WITHIN_S = 120.0
PAUSE_FRAMES = 2
HEADER_BYTES = 150
"""About what a message takes beside its tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What nodes there are."""

    model: Path | None
    """Its folder; None: the built-in model."""
    num_layers: int
    num_hops: int = 3
    up_mbit: float = math.inf
    """Of every machine."""
    dtype: str = "float32"
    prefill_chunk_tokens: int = 0
    """The most that a hop sends on as one step; 0: its default."""

    @property
    def ranges(self) -> list[LayerRange]:
        """The hops' layers, about evenly."""
        edges = [hop * self.num_layers // self.num_hops for hop in range(self.num_hops + 1)]
        return [LayerRange(start, stop) for start, stop in itertools.pairwise(edges)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer as its client saw it; seconds."""

    token_ids: tuple[int, ...]
    began_s: float
    """When it was asked for, on the clock of all processes."""
    ttft_s: float
    gaps_s: tuple[float, ...]
    """From each token to the next."""
    computes_s: tuple[float, ...]
    """Of each hop, per step."""
    nums_steps: tuple[int, ...]
    """Of each hop."""
    failovers: int
    """Nobody fails here: each is a false alarm."""
    num_right: int
    num_wrong: int
    draft_s: float
    """Per guess."""

    @classmethod
    def of(cls, began: float, at: Sequence[float], done: dict[str, Any]) -> Self:
        """From the times of the tokens and the client's last event."""
        hops = done["hops"]
        return cls(
            token_ids=tuple(done["token_ids"]),
            began_s=began,
            ttft_s=at[0] - began,
            gaps_s=tuple(later - earlier for earlier, later in itertools.pairwise(at)),
            computes_s=tuple(hop["compute_s"] / max(1, hop["num_steps"]) for hop in hops),
            nums_steps=tuple(hop["num_steps"] for hop in hops),
            failovers=done["failovers"],
            num_right=done["num_right"],
            num_wrong=done["num_wrong"],
            draft_s=done["draft_s"],
        )

    @property
    def token_s(self) -> float:
        """Mean time from one token to the next: what compute times add up to."""
        return mean(self.gaps_s)

    @property
    def tokens_per_s(self) -> float:
        """Of the tokens after the first."""
        return 1.0 / self.token_s

    @property
    def whole_s(self) -> float:
        """From the request to the last token."""
        return self.ttft_s + sum(self.gaps_s)

    @property
    def compute_s(self) -> float:
        """Of a step, all hops together."""
        return sum(self.computes_s)

    @property
    def acceptance(self) -> float:
        """The share of guesses that were right, of those that had the chance to be."""
        return self.num_right / max(1, self.num_right + self.num_wrong)


class WanChain:
    """The nodes, and what else there is in their namespaces. Made by `wan_chain`."""

    def __init__(self, swarm: WanSwarm, setting: Setting) -> None:
        self._swarm = swarm
        self._setting = setting
        self._hops = [f"hop-{index}" for index in range(setting.num_hops)]

    async def start(self) -> None:
        """Connect the machines and start their nodes; lines are perfect."""
        setting, link = self._setting, Link(up_mbit=self._setting.up_mbit)
        await self._swarm.place(BOOTSTRAP, Place(link=Link()))
        for name in (*self._hops, CLIENT):
            await self._swarm.place(name, Place(link=link))
        await self._swarm.serve(BOOTSTRAP, Duty(layers=None))
        for name, layers in zip(self._hops, setting.ranges, strict=True):
            duty = Duty(
                layers=layers,
                model=self._model,
                dtype=setting.dtype,
                prefill_chunk_tokens=setting.prefill_chunk_tokens,
            )
            await self._swarm.serve(name, duty)

    async def set_delay(self, delay_ms: float) -> None:
        """One way, between any two machines."""
        names, line = [*self._hops, CLIENT, BOOTSTRAP], Line(delay_s=delay_ms / 1e3)
        await self._swarm.network.set_lines(dict.fromkeys(itertools.permutations(names, 2), line))

    def set_whole(self, *, is_whole: bool) -> None:
        """Whether hops compute a step in one piece; where ``prefill_chunk_tokens`` is set."""
        for name in self._hops:
            self._swarm.machines[name].tell(Change(is_whole=is_whole))

    async def client(self, *, has_ring: bool = False, **options: Any) -> ChainClient:
        """Another client; options: see `Join`. What is called plain decoding has no ring."""
        join = Join(join=(), home="", model=self._model, has_ring=has_ring, **options)
        return ChainClient(await self._swarm.client(CLIENT, join))

    async def floor(self, hidden_bytes: int) -> Floor:
        """Plain sockets along the same way, with frames of the same sizes."""
        names = [CLIENT, *self._hops]
        programs, ports = [], []
        for name in names:
            launch = Launch(
                module="p2pnode.lab.wan.floor",
                arguments=(),
                namespace=self._swarm.network.namespace(name).name,
            )
            program = await self._swarm.run(f"floor-{name}", launch)
            ports.append((await program.wait_for("port", FLOOR_WITHIN_S))["port"])
            programs.append(program)
        for index, program in enumerate(programs):
            following = (index + 1) % len(names)
            is_hidden = 0 < index < len(names) - 1
            program.tell(
                floor.Next(
                    host=self._swarm.network.namespace(names[following]).address,
                    port=ports[following],
                    num_bytes=HEADER_BYTES + (hidden_bytes if is_hidden else 0),
                    is_client=index == 0,
                )
            )
        return Floor(programs[0])

    @property
    def _model(self) -> str | None:
        return str(self._setting.model) if self._setting.model else None


@dataclass(frozen=True, slots=True)
class ChainClient:
    """A client's process."""

    client: WanClient

    async def ask(self, request: Generate) -> Answer:
        """One answer; raises LocalError when there is none."""
        began, at = time.monotonic(), []
        async with aclosing(self.client.generate(request)) as events:
            async for event in events:
                match event["event"]:
                    case "token":
                        at.append(event["at_s"])
                    case "done" if len(at) > 1:
                        return Answer.of(began, at, event)
                    case "failed":
                        what = f"no answer: {event['kind']}: {event['message']}"
                        raise LocalError(f"{what}; {self.client.program.last_words()}")
        raise LocalError("an answer of fewer than two tokens")


@dataclass(frozen=True, slots=True)
class Floor:
    """The client of plain sockets."""

    program: Program

    async def loop_s(self, num_frames: int) -> float:
        """How long a frame takes to come around, mean."""
        # The first ones after a pause find connections that start slowly; so does a prompt's.
        self.program.tell(floor.Send(num_frames=num_frames + PAUSE_FRAMES))
        times: list[float] = (await self.program.wait_for("times", FLOOR_WITHIN_S))["times_s"]
        return mean(times[PAUSE_FRAMES:])


@asynccontextmanager
async def wan_chain(setting: Setting) -> AsyncIterator[WanChain]:
    """Start it; raises NoNamespaces where that cannot be."""
    async with AsyncExitStack() as stack:
        swarm = await stack.enter_async_context(WanSwarm())
        chain = WanChain(swarm, setting)
        await chain.start()
        yield chain


def greedy(prompt_ids: Sequence[int], max_tokens: int, **options: Any) -> Generate:
    """A request for the likeliest tokens; options: see `Generate`."""
    request = Generate(id=0, prompt_ids=tuple(prompt_ids), max_tokens=max_tokens)
    return replace(request, **options)
