"""The table of the peers of a chain that is there already."""

from __future__ import annotations

from p2pnode.routing.needs import Needs
from p2pnode.routing.table import Table
from p2pnode.types import Announcement, Chain, Hop, SwarmView


def members_of(view: SwarmView, needs: Needs, chain: Chain) -> Table:
    """The peers of a chain, also those that nobody would choose any more."""
    known = {a.peer: a for a in view.announcements if a.fingerprint == needs.fingerprint}
    members = {hop.peer: known.get(hop.peer) or _stand_in(hop, needs, chain) for hop in chain.hops}
    return Table.of(view, list(members.values()), needs, chain.numerics, None)


def _stand_in(hop: Hop, needs: Needs, chain: Chain) -> Announcement:
    """For a hop whose announcement has expired while it goes on: all that counts is where it is."""
    return Announcement(
        peer=hop.peer,
        model=needs.model,
        fingerprint=needs.fingerprint,
        num_layers=needs.num_layers,
        layers=hop.layers,
        numerics=chain.numerics,
        device="",
        device_name="",
        vram_total_bytes=0,
        vram_free_bytes=0,
        kv_capacity_tokens=0,
        flops_per_s=0.0,
        memory_bytes_per_s=0.0,
        latency_s=0.0,
        tokens_per_s=0.0,
        up_bytes_per_s=0.0,
        down_bytes_per_s=0.0,
        offers_embedding=False,
        offers_head=False,
        addresses=hop.addresses,
        protocol=0,
        software="",
        sequence=0,
        issued_at=0.0,
        expires_at=0.0,
    )
