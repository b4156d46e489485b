"""Which peers computed an answer, and where its time went: headers, comments and fields."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from p2pnode.client.events import Done
from p2pnode.types import Chain

CHAIN_ID = "P2PNode-Chain-Id"
CHAIN = "P2PNode-Chain"
MAX_TIMED = 4


def chain_id(chain: Chain) -> str:
    """The same for the same peers with the same layers, in any gateway."""
    named = " ".join(f"{hop.peer}:{hop.layers}" for hop in chain.hops)
    return hashlib.sha256(f"{chain.numerics} {named}".encode()).hexdigest()[:16]


def chain_headers(chains: Sequence[Chain | None]) -> dict[str, str]:
    """The chains known by now, each once."""
    known = list(dict.fromkeys(chain for chain in chains if chain is not None))
    if not known:
        return {}
    shown = [" ".join(f"{hop.peer.short}:{hop.layers}" for hop in chain.hops) for chain in known]
    return {CHAIN_ID: ", ".join(map(chain_id, known)), CHAIN: ", ".join(shown)}


def server_timing(answers: Sequence[Done]) -> str:
    """The ``Server-Timing`` header: time to the first token, and each hop's compute and queue.

    Of the first few answers: a header has little room; the ``p2pnode`` field has all.
    """
    metrics = []
    for number, done in enumerate(answers[:MAX_TIMED]):
        prefix = f"a{number}-" if len(answers) > 1 else ""
        metrics.append(f"{prefix}first-token;dur={_ms(done.ttft_s)}")
        for index, hop in enumerate(done.hops):
            name, where = f"{prefix}hop{index}", f"{hop.peer.short} layers {hop.layers}"
            metrics.append(f'{name};dur={_ms(hop.compute_s)};desc="{where}"')
            metrics.append(f'{name}-queue;dur={_ms(hop.queue_s)};desc="{where}, waiting"')
    return ", ".join(metrics)


def described(done: Done) -> dict[str, Any]:
    """The ``p2pnode`` field of an answer."""
    return {
        "chain_id": chain_id(done.chain),
        "failovers": done.failovers,
        "hedges": done.hedges,
        "ttft_s": done.ttft_s,
        "tokens_per_s": done.tokens_per_s,
        "stall_s": done.stall_s,
        "hops": [
            {
                "peer": hop.peer,
                "layers": str(hop.layers),
                "steps": hop.num_steps,
                "compute_s": hop.compute_s,
                "queue_s": hop.queue_s,
                "rtt_s": hop.rtt_s,
            }
            for hop in done.hops
        ],
    }


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}"
