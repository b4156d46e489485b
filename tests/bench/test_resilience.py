"""`p2pnode bench resilience`: rows that are well formed, whatever happens in a part."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2pnode.bench import run_bench
from p2pnode.bench.resilience import PARTS, resilience
from p2pnode.bench.resilience_rows import Setup, silence_limit_ms, standby_limit_ms
from p2pnode.bench.result import Row, at_most
from p2pnode.errors import BadRequest, NoChain

FIELDS = {"metric", "value", "unit", "baseline", "ratio", "goal", "met", "spread"}
CHEAP = ("gossip_flood", "scale_choice_ms", "leave_stall", "standby_cost", "soak")


async def test_a_tiny_run_in_memory_gives_well_formed_rows(tmp_path: Path) -> None:
    notes: list[str] = []
    parts = [(name, part) for name, part in PARTS if name in CHEAP]
    found = await resilience(
        notes.append,
        is_quick=True,
        transport="memory",
        folder=tmp_path,
        parts=parts,
        num_nodes=60,
    )
    rows = {row["metric"]: row for row in json.loads(json.dumps(found))["rows"]}
    assert set(CHEAP) <= rows.keys()
    assert all(row.keys() == FIELDS for row in rows.values())
    assert all(
        (row["met"] is None) == (row["goal"] is None) for row in rows.values() if row["unit"]
    )
    assert rows["leave_stall"]["met"]
    assert "0 of 3 sessions failed, memory" in rows["leave_stall"]["spread"]
    assert rows["scale_choice_ms"]["value"] > 0
    assert rows["soak"]["value"] is None
    assert rows["soak"]["spread"] == "not measured: real processes need network namespaces"
    assert notes[0] == "in memory, on virtual time"


async def test_without_records_every_kind_is_said_to_be_lacking(tmp_path: Path) -> None:
    parts = [(name, part) for name, part in PARTS if name == "kill_identical"]
    found = await resilience(lambda _: None, transport="memory", folder=tmp_path, parts=parts)
    first, *others = found["rows"]
    assert (first["metric"], first["value"], first["met"]) == ("kill_identical", 0.0, False)
    assert len(others) == 14
    assert all("run p2pnode lab sweep --fault" in row["spread"] for row in others)


async def test_a_part_that_fails_is_a_row_and_loses_no_other(tmp_path: Path) -> None:
    async def broken(_: Setup) -> list[Row]:
        raise NoChain("nobody serves layers 0-2")

    async def well(_: Setup) -> list[Row]:
        return [at_most("well", [1.0], "s", 2.0)]

    parts = [("broken", broken), ("well", well)]
    found = await resilience(lambda _: None, transport="memory", folder=tmp_path, parts=parts)
    assert [(row["metric"], row["value"]) for row in found["rows"]] == [
        ("broken", None),
        ("well", 1.0),
    ]
    assert found["rows"][0]["spread"] == "not measured: NoChain: nobody serves layers 0-2"


def test_goals_follow_from_loop_times() -> None:
    assert standby_limit_ms(80.0)[0] == 410.0
    assert silence_limit_ms(80.0)[0] == 6 * 80.0 + 2 * 80.0
    assert silence_limit_ms(20.0)[0] == 250.0 + 2 * 20.0


async def test_the_quick_form_is_of_resilience_only() -> None:
    with pytest.raises(BadRequest, match="no quick form"):
        await run_bench("loopback", lambda _: None, is_quick=True)
