"""What a node says of itself now, for gossip: load, room, times, errors."""

from __future__ import annotations

import asyncio

from p2pnode.node.figures import Figures
from p2pnode.serving.handler import Handler
from p2pnode.serving.worker import Worker
from p2pnode.types import Health, PeerId

LOAD_OVER_S = 2.0


class HealthMeter:
    """Reads the handler's and the worker's figures when it is asked."""

    def __init__(self, peer: PeerId, handler: Handler, worker: Worker, figures: Figures) -> None:
        self._peer = peer
        self._handler = handler
        self._worker = worker
        self._figures = figures
        self._load = 0.0
        self._read_at = 0.0
        self._busy_s = 0.0

    def health(self) -> Health:
        """Our health, but for sequence, time and coordinate, which are gossip's."""
        now = asyncio.get_running_loop().time()
        tally, figures, sessions = self._worker.tally, self._figures, self._handler.sessions
        held = sum(session.max_tokens for session in sessions.values())
        device = figures.device
        free_bytes = max(0, device.free_bytes - held * figures.bytes_per_token)
        return Health(
            peer=self._peer,
            sequence=0,
            issued_at=0.0,
            is_draining=self._handler.places.is_draining,
            num_sessions=len(sessions),
            queue_depth=self._worker.num_waiting,
            queue_s=tally.queue_s,
            kv_free_tokens=max(0, figures.kv_capacity_tokens - held),
            step_times=tally.step_times(),
            vram_used=1.0 - free_bytes / device.total_bytes,
            device_load=self._device_load(now),
            errors=tally.errors(now),
        )

    def _device_load(self, now: float) -> float:
        """The share of the last seconds in which the device computed."""
        since_s, busy_s = now - self._read_at, self._worker.tally.busy_s
        if since_s >= LOAD_OVER_S:
            self._load = min(1.0, (busy_s - self._busy_s) / since_s)
            self._read_at, self._busy_s = now, busy_s
        return self._load
