"""One block, served and announced on one network, until the network fails or we are cancelled."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass, field
from typing import Any

from p2pnode.config import NodeConfig
from p2pnode.gossip.gossip import Gossip
from p2pnode.model.block import Block
from p2pnode.net.links import Links
from p2pnode.node.events import OnEvent
from p2pnode.node.figures import Figures, session_bytes_per_token
from p2pnode.node.health import HealthMeter
from p2pnode.node.limits import Busy, LoadOfOthers, leave_at
from p2pnode.numerics import Numerics
from p2pnode.serving.admission import Admission
from p2pnode.serving.handler import Handler
from p2pnode.serving.limits import Limits
from p2pnode.serving.quotas import Quotas
from p2pnode.serving.session import HopSession
from p2pnode.serving.worker import Worker
from p2pnode.swarm.announcer import Announcer
from p2pnode.swarm.network import Joined
from p2pnode.swarm.view import SwarmReader
from p2pnode.tasks import Tasks
from p2pnode.types import Announcement, PeerId
from p2pnode.version import SOFTWARE
from p2pnode.wire.messages import PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class BlockServer:
    """Serves a loaded block; a new one is made for each network, the block stays."""

    block: Block
    figures: Figures
    config: NodeConfig
    on_event: OnEvent
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    """Set from outside: leave, when the sessions have moved."""

    async def run(self, joined: Joined) -> None:
        """Serve until told to leave; raises what ended the network (DaemonDied)."""
        transport, config, figures = joined.transport, self.config, self.figures
        busy = Busy(LoadOfOthers())
        admission = self._admission(transport.peer, busy)
        limits = Limits(
            chunk_tokens=config.prefill_chunk_tokens,
            session_idle_timeout_s=config.session_idle_timeout_s,
            journal_bytes=config.journal_bytes,
            journals_bytes=config.journals_bytes,
        )
        async with (
            Worker(figures.step_times) as worker,
            Handler(
                self.block, worker, admission, limits, self._session_event, _quotas(joined)
            ) as handler,
        ):
            gossip = self._gossip(joined, HealthMeter(transport.peer, handler, worker, figures))
            async with self._links(joined, handler, gossip) as links, Tasks() as tasks:
                tasks.start(handler.run(links), name="handler")
                tasks.start(gossip.run(links), name="gossip")
                await links.serve()
                announcer = Announcer(
                    joined.directory,
                    lambda: self._announcement(joined, handler, links),
                    wall_clock=config.wall_clock,
                )
                announcing = tasks.start(announcer.run(), name="announcer")
                tasks.start(transport.wait_closed(), name="transport")
                tasks.start(_announce_to_new(joined, announcer), name="announce-to-new")
                self._heed_owner(tasks, busy)
                await announcer.wait_published()
                self.on_event("serving", self._serving(joined))
                await self.leaving.wait()
                await self._leave(announcing, handler, gossip)

    def _admission(self, peer: PeerId, busy: Busy) -> Admission:
        block = self.block
        return Admission(
            peer=peer,
            spec=block.spec,
            layers=block.layers,
            numerics=self._numerics,
            capacity_tokens=self.figures.kv_capacity_tokens,
            max_sessions=self.config.max_sessions,
            is_busy=lambda: busy.is_busy,
            bytes_per_token=functools.partial(session_bytes_per_token, block),
        )

    @property
    def _numerics(self) -> str:
        return str(Numerics(self.block.dtype, self.config.wire, self.block.quant))

    def _heed_owner(self, tasks: Tasks, busy: Busy) -> None:
        """What the volunteer has asked for: until when, and not while they use the machine."""
        config = self.config
        if config.pauses_when_busy:
            tasks.start(busy.run(), name="busy")
        if config.until is not None:
            leaving = leave_at(config.until, self.leaving.set, wall_clock=config.wall_clock)
            tasks.start(leaving, name="until")

    async def _leave(
        self, announcing: asyncio.Task[None], handler: Handler, gossip: Gossip
    ) -> None:
        """Be announced no more, and let the sessions move to others; bounded."""
        announcing.cancel()  # which withdraws
        handler.places.is_draining = True
        gossip.publish()
        await handler.places.drain(self.config.drain_within_s)
        await asyncio.wait([announcing])

    def _links(self, joined: Joined, handler: Handler, gossip: Gossip) -> Links:
        config = self.config
        return Links(
            joined.transport,
            handler,
            software=SOFTWARE,
            connect_timeout_s=config.connect_timeout_s,
            heartbeat=(config.heartbeat_interval_s, config.heartbeat_timeout_s),
            control_events=gossip,
            lossy=config.wire,
            up_bytes_per_s=config.up_bytes_per_s,
            pads=True,
        )

    def _gossip(self, joined: Joined, meter: HealthMeter) -> Gossip:
        wall_clock = self.config.wall_clock
        reader = SwarmReader(
            joined.directory, wall_clock=wall_clock, monotonic=asyncio.get_running_loop().time
        )
        return Gossip(
            joined.transport.peer,
            joined.sign,
            members=reader.view,
            wall_clock=wall_clock,
            describe=meter.health,
        )

    def _serving(self, joined: Joined) -> dict[str, Any]:
        spec = self.block.spec
        return {
            "peer": joined.transport.peer,
            "model": spec.name,
            "fingerprint": spec.fingerprint,
            "layers": str(self.block.layers),
            "dtype": self._numerics,
        }

    def _session_event(self, event: str, session: HopSession) -> None:
        fields = {"client": session.client.peer, "layers": str(session.layers)}
        self.on_event(event, {"session": session.id.hex(), **fields})

    def _announcement(self, joined: Joined, handler: Handler, links: Links) -> Announcement:
        block, spec, figures = self.block, self.block.spec, self.figures
        held = sum(session.max_tokens for session in handler.sessions.values())
        return Announcement(
            peer=joined.transport.peer,
            model=spec.name,
            fingerprint=spec.fingerprint,
            num_layers=spec.num_layers,
            layers=block.layers,
            numerics=self._numerics,
            device=figures.device.kind,
            device_name=figures.device.name[:64],
            vram_total_bytes=figures.device.total_bytes,
            vram_free_bytes=max(0, figures.device.free_bytes - held * figures.bytes_per_token),
            kv_capacity_tokens=figures.kv_capacity_tokens,
            flops_per_s=figures.flops_per_s,
            memory_bytes_per_s=figures.memory_bytes_per_s,
            latency_s=figures.latency_s,
            tokens_per_s=figures.tokens_per_s,
            up_bytes_per_s=links.up_bytes_per_s,
            down_bytes_per_s=0.0,
            offers_embedding=block.embeds,
            offers_head=block.has_head,
            addresses=joined.transport.addresses,
            protocol=PROTOCOL_VERSION,
            software=SOFTWARE,
            sequence=0,
            issued_at=0.0,
            expires_at=0.0,
        )


def _quotas(joined: Joined) -> Quotas | None:
    """Of members; in a public swarm nobody has one."""
    inside = joined.inside
    return None if inside is None else Quotas(joined.transport.peer, inside.member)


async def _announce_to_new(joined: Joined, announcer: Announcer) -> None:
    """Nodes that we meet later hear of us at once: two islands become one swarm."""
    while True:
        await joined.met.wait()
        joined.met.clear()
        announcer.announce_now()
