"""Pictures of swarms for the page, and a source that tells them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from p2pnode.client.peers import Observed, PeerSeen
from p2pnode.client.picture import picture
from p2pnode.routing.histogram import STEP_EDGES_S, UPTIME_EDGES_S, Histogram
from p2pnode.types import Announcement, Health, LayerRange, Liveness, PeerHealth, PeerId, SwarmView
from tests.support.announcements import announcement, key_pair

DEVICES = (
    ("cuda", "NVIDIA GeForce RTX 4090", 24e9, 210.0),
    ("cpu", "AMD Ryzen 9 7950X", 64e9, 41.0),
    ("cuda", "NVIDIA RTX A4000", 16e9, 120.0),
    ("mps", "Apple M2 Max", 32e9, 96.0),
    ("cuda", "NVIDIA GeForce GTX 1080 Ti", 11e9, 74.0),
    ("cpu", "Intel Xeon Silver 4214", 96e9, 28.0),
)


@dataclass
class SceneSource:
    """A `Source` that tells what it is given."""

    announcements: list[Announcement] = field(default_factory=list)
    health: dict[PeerId, PeerHealth] = field(default_factory=dict)
    seen: list[PeerSeen] = field(default_factory=list)
    rtts_s: dict[PeerId, float] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    num_tokens: int = 0
    why_not: str = ""
    has_chat_template: bool = True

    async def read(self, *, max_age_s: float) -> None:
        """See `Source.read`."""

    def swarm(self) -> dict[str, Any]:
        """See `Source.swarm`."""
        view = SwarmView(tuple(self.announcements), self.health)
        observed = Observed(view=view, seen=tuple(self.seen), rtts_s=self.rtts_s)
        first = self.announcements[0] if self.announcements else None
        about = {
            "software": "p2pnode/0.1.0",
            "model": first.model if first else None,
            "fingerprint": first.fingerprint if first else None,
            "has_chat_template": self.has_chat_template,
            "why_not": self.why_not,
        }
        return {
            **picture(observed, max_peers=256),
            "gateway": about,
        }

    def requests(self) -> dict[str, Any]:
        """See `Source.requests`."""
        return {"num_tokens": self.num_tokens, "requests": self.runs}


def scene(*ranges: str, num_layers: int = 40, **changes: Any) -> SceneSource:
    """A swarm with a peer for each range, all of them well."""
    source = SceneSource()
    for number, text in enumerate(ranges):
        device, name, total, speed = DEVICES[number % len(DEVICES)]
        made = announcement(
            key_pair(number),
            model="Qwen/Qwen3-8B",
            num_layers=num_layers,
            layers=LayerRange.parse(text),
            device=device,
            device_name=name,
            vram_total_bytes=int(total),
            vram_free_bytes=int(total / 2),
            tokens_per_s=speed,
            latency_s=1 / speed,
        )
        source.announcements.append(dataclasses.replace(made, **changes))
        source.health[made.peer] = alive(made.peer, number)
        source.rtts_s[made.peer] = 0.012 + 0.009 * (number % 5)
        source.seen.append(spotless(made.peer))
    return source


def alive(peer: PeerId, number: int = 0) -> PeerHealth:
    return PeerHealth(
        Health(
            peer=peer,
            sequence=1,
            issued_at=0.0,
            num_sessions=number % 4,
            queue_s=0.0004,
            step_times=((1, 0.006 + 0.002 * (number % 3), 0.011),),
            vram_used=0.35 + 0.06 * (number % 10),
            device_load=0.12 * (number % 6),
        )
    )


def gone(peer: PeerId, liveness: Liveness = Liveness.DEAD) -> PeerHealth:
    return dataclasses.replace(alive(peer), liveness=liveness)


def leaving(peer: PeerId) -> PeerHealth:
    return PeerHealth(dataclasses.replace(alive(peer).health, is_draining=True))


def spotless(peer: PeerId) -> PeerSeen:
    steps = Histogram(STEP_EDGES_S)
    steps.add(0.02)
    return PeerSeen(
        peer=peer,
        layers=None,
        steps=steps,
        there_s=100.0,
        uptimes=Histogram(UPTIME_EDGES_S),
        failures=(),
        score=0.0,
        back_off_s=0.0,
    )


def run(source: SceneSource, *hops: tuple[int, str], outcome: str = "running") -> dict[str, Any]:
    """A request through the peers of these numbers, with these layers."""
    return {
        "id": f"{hops[0][0]:x}a7b34cd56ef7890",
        "outcome": outcome,
        "prompt_tokens": 12,
        "num_tokens": 84,
        "ttft_s": 0.312,
        "tokens_per_s": 13.4,
        "failovers": 0,
        "hedges": 1,
        "hops": [
            {
                "peer": source.announcements[number].peer,
                "layers": layers,
                "num_steps": 84,
                "way_s": 0.011 + 0.004 * index,
                "queue_s": 0.0009 * index,
                "compute_s": 0.0072 + 0.003 * (index % 2),
            }
            for index, (number, layers) in enumerate(hops)
        ],
    }


def large(num_layers: int = 40, num_peers: int = 12) -> SceneSource:
    """Twelve peers of different kinds and states."""
    ranges: Sequence[str] = (
        "0-9", "0-13", "0-19", "10-19", "10-25", "14-27", "20-29", "20-33", "26-33", "28-39",
        "30-35", "34-39",
    )  # fmt: skip
    source = scene(*ranges[:num_peers], num_layers=num_layers)
    peers = [a.peer for a in source.announcements]
    source.health[peers[4]] = leaving(peers[4])
    source.health[peers[8]] = gone(peers[8], Liveness.SUSPECT)
    source.health[peers[9]] = gone(peers[9])
    source.seen[5] = dataclasses.replace(
        source.seen[5], failures=(("timeout", 2),), score=1.6, back_off_s=24.0
    )
    source.seen[7] = dataclasses.replace(source.seen[7], failures=(("outpaced", 1),), score=0.2)
    source.runs = [
        run(source, (1, "0-13"), (5, "14-27"), (7, "28-33"), (11, "34-39")),
        run(source, (2, "0-19"), (6, "20-29"), (10, "30-35"), (11, "36-39"), outcome="done"),
    ]
    return source
