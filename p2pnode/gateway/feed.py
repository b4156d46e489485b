"""What the page is told: made once for all viewers, and only while there are any.

Everything is told as a whole: a viewer that was away, or is slow, misses what came between and is
up to date with the next one.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from typing import Any, Protocol

from p2pnode.client.picture import picture
from p2pnode.client.runs import Run
from p2pnode.errors import P2PNodeError
from p2pnode.gateway.errors import ApiError
from p2pnode.gateway.gateway import Gateway
from p2pnode.tasks import Tasks
from p2pnode.version import SOFTWARE

log = logging.getLogger(__name__)

TICK_S = 0.25
"""How soon something new is told."""
CALM_S = 1.0
"""The same where only figures have changed: those of large swarms do it all the time."""
READ_EVERY_S = 2.0
READ_PER_PEER_S = 0.02
"""The directory is read more seldom where it is large."""
MAX_PEERS = 256
"""More are counted, not shown."""
SWARM, REQUESTS = "swarm", "requests"


class Source(Protocol):
    """Where a feed has it from."""

    async def read(self, *, max_age_s: float) -> None:
        """Look who is in the swarm; raises P2PNodeError."""
        ...

    def swarm(self) -> dict[str, Any]:
        """The picture of the swarm (`client.picture`), and ``gateway``."""
        ...

    def requests(self) -> dict[str, Any]:
        """The requests that run, and how many tokens there were so far."""
        ...


class GatewaySource:
    """The client of a gateway, whichever it has at the moment."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def read(self, *, max_age_s: float) -> None:
        """See `Source.read`."""
        try:
            client = self._gateway.client
        except ApiError:
            return
        await client.seen.observe(max_age_s=max_age_s)

    def swarm(self) -> dict[str, Any]:
        """See `Source.swarm`."""
        try:
            client = self._gateway.client
        except ApiError:
            about = _about(None, None, why_not=self._gateway.why_not)
            return {"models": [], "peers": [], "num_peers": 0, "gateway": about}
        model = client.model
        about = _about(model.spec.name, model.spec.fingerprint)
        about["has_chat_template"] = model.codec.has_chat_template
        return {**picture(client.seen.observed(), max_peers=MAX_PEERS), "gateway": about}

    def requests(self) -> dict[str, Any]:
        """See `Source.requests`."""
        try:
            runs = self._gateway.client.seen.runs
        except ApiError:
            return {"num_tokens": 0, "requests": []}
        shown = [_run(run) for run in runs.snapshot()[:MAX_PEERS]]
        return {"num_tokens": runs.num_tokens, "requests": shown}


def _about(model: str | None, fingerprint: str | None, why_not: str = "") -> dict[str, Any]:
    return {
        "software": SOFTWARE,
        "model": model,
        "fingerprint": fingerprint,
        "has_chat_template": False,
        "why_not": why_not,
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "outcome": run.outcome,
        "prompt_tokens": run.prompt_tokens,
        "num_tokens": run.num_tokens,
        "ttft_s": run.ttft_s,
        "tokens_per_s": run.tokens_per_s,
        "failovers": run.failovers,
        "hedges": run.hedges,
        "hops": [
            {
                "peer": hop.peer,
                "layers": str(hop.layers),
                "num_steps": hop.num_steps,
                "way_s": hop.way_s,
                "queue_s": hop.queue_s,
                "compute_s": hop.compute_s,
            }
            for hop in run.hops
        ],
    }


class Feed:
    """The newest events, and the viewers that wait for the next ones."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._events: dict[str, tuple[int, bytes]] = {}
        """By kind: its number, and the bytes of the event."""
        self._num_told = 0
        self._next = asyncio.Event()
        """Set, and replaced by another one, when there is something new."""
        self._viewed = asyncio.Event()
        self._num_viewers = 0
        self._told: tuple[str, Any, float] | None = None
        """Of the last picture of the swarm: text, what is urgent in it, and when it was told."""

    @property
    def num_viewers(self) -> int:
        """How many there are now."""
        return self._num_viewers

    async def run(self) -> None:
        """Keep viewers up to date until cancelled."""
        async with Tasks() as tasks:
            tasks.start(self._read(), name="feed-read")
            tasks.start(self._tell(), name="feed-tell")
            await tasks.wait()

    async def events(self) -> AsyncGenerator[bytes, None]:
        """What one viewer is sent: what is known now, and then what is new."""
        seen: dict[str, int] = {}
        self._num_viewers += 1
        self._viewed.set()
        try:
            while True:
                following = self._next
                for kind, (number, event) in [*self._events.items()]:
                    if seen.get(kind) != number:
                        seen[kind] = number
                        yield event
                await following.wait()
        finally:
            self._num_viewers -= 1
            if not self._num_viewers:
                self._viewed.clear()
                self._events.clear()  # the next viewer shall not begin with what is old
                self._told = None

    async def _read(self) -> None:
        while True:
            await self._viewed.wait()
            try:
                await self._source.read(max_age_s=READ_EVERY_S)
            except P2PNodeError as error:
                log.debug("swarm not read: error=%s", error)
            num_peers = self._told[1]["num_peers"] if self._told else 0
            await asyncio.sleep(max(READ_EVERY_S, READ_PER_PEER_S * num_peers))

    async def _tell(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await self._viewed.wait()
            self._tell_swarm(clock())
            self._put(REQUESTS, _text(self._source.requests()))
            await asyncio.sleep(TICK_S)

    def _tell_swarm(self, now: float) -> None:
        swarm = self._source.swarm()
        text, urgent = _text(swarm), _urgent(swarm)
        if self._told is not None:
            before, urgent_before, told_at = self._told
            if text == before or (urgent == urgent_before and now - told_at < CALM_S):
                return
        self._told = text, urgent, now
        self._put(SWARM, text)

    def _put(self, kind: str, text: str) -> None:
        event = f"event: {kind}\ndata: {text}\n\n".encode()
        if self._events.get(kind, (0, b""))[1] == event:
            return
        self._num_told += 1
        self._events[kind] = self._num_told, event
        following, self._next = self._next, asyncio.Event()
        following.set()


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _urgent(swarm: dict[str, Any]) -> dict[str, Any]:
    """Who is there, with which layers, and how: what nobody should have to wait for."""
    return {
        "gateway": swarm["gateway"],
        "num_peers": swarm["num_peers"],
        "peers": [
            (peer["peer"], peer["layers"], health["liveness"], health["is_draining"])
            if (health := peer["health"])
            else (peer["peer"], peer["layers"], None, None)
            for peer in swarm["peers"]
        ],
    }
