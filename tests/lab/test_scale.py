"""Large swarms, simulated small: figures are there, and the same each time."""

from __future__ import annotations

from p2pnode.lab import scale
from p2pnode.lab.flood import run_flood


async def test_all_figures_are_there() -> None:
    notes: list[str] = []
    figures = await scale.run(20, 0, notes.append)
    assert notes == [f"20 nodes: {name}" for name in ("choice", "lookup", "gossip")]
    assert figures["lookup_found"] == 1.0
    assert figures["gossip_known"] == 1.0
    assert 0 < figures["gossip_bytes_per_node_s"] < 8000
    assert 0 < figures["choice_ms"] < figures["choice_cold_ms"]


def test_a_lookup_costs_the_same_each_time() -> None:
    first, again = (scale.lookup(10, lookups=1) for _ in range(2))
    assert first == again
    assert first["lookup_messages"] > 2 * 8
    assert first["lookup_again_bytes"] < first["lookup_renewed_bytes"] < first["lookup_bytes"]


def test_a_flood_costs_little_and_hides_nobody() -> None:
    found = run_flood(rate_per_s=4_000)
    assert found.core_share < 0.3
    assert found.seen_after_s < 2 * found.period_s
