"""The row about a private swarm's doors."""

from __future__ import annotations

from pathlib import Path

from p2pnode.bench.parts import Setup
from p2pnode.bench.strangers import strangers


async def test_no_stranger_gets_in(tmp_path: Path) -> None:
    setup = Setup(note=lambda what: None, folder=tmp_path, is_quick=True)
    (row,) = await strangers(setup)
    assert (row.metric, row.value, row.met) == ("strangers_in", 0.0, True)
    assert "73 tries, of 9 doors" in row.spread
