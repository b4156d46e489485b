"""The row about a private swarm's doors."""

from __future__ import annotations

from p2pnode.bench.strangers import strangers


async def test_no_stranger_gets_in() -> None:
    (row,) = await strangers()
    assert (row.metric, row.value, row.met) == ("strangers_in", 0.0, True)
    assert "73 tries, of 9 doors" in row.spread
