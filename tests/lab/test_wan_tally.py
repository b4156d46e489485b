"""A soak's figures: slopes of memory, who may die, and checkpoints that survive a cut."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from p2pnode.errors import BadRequest
from p2pnode.lab.wan.soak import read_checkpoint, write_checkpoint
from p2pnode.lab.wan.tally import SoakResult, slope_mb_per_min, victims
from p2pnode.types import LayerRange

MB = 1_000_000


def grown(seconds: int, mb_per_min: float, *, jump_mb: int = 0) -> list[tuple[float, int]]:
    """Samples of a process that grows by so much, after a jump in its first seconds."""
    sizes = [(float(at), int(500 * MB + mb_per_min * MB * at / 60)) for at in range(0, seconds, 5)]
    return [(at, size + (jump_mb * MB if at >= 20 else 0)) for at, size in sizes]


def test_the_slope_is_that_of_the_growth_and_not_of_the_warming_up() -> None:
    slope = slope_mb_per_min(grown(1200, 2.5, jump_mb=80), 1800)
    assert slope == pytest.approx(2.5, rel=0.01)


def test_a_process_that_lived_shortly_is_not_measured() -> None:
    assert slope_mb_per_min(grown(500, 2.5), 1800) is None
    assert slope_mb_per_min(grown(170, 2.5), 180) == pytest.approx(2.5, rel=0.01)
    assert slope_mb_per_min([], 180) is None


def test_only_those_may_die_whose_layers_somebody_else_serves() -> None:
    low, high = LayerRange(0, 9), LayerRange(9, 18)
    assert victims({"a": low, "b": high, "c": low}) == ["a", "c"]
    assert victims({"a": low, "b": high}) == []


def test_a_soak_goes_on_where_it_was_also_when_its_last_line_was_cut(tmp_path: Path) -> None:
    record = tmp_path / "deep" / "soak.jsonl"
    assert read_checkpoint(record) is None
    first = SoakResult(requests=5, right=5, minutes=1.5, seed=3)
    write_checkpoint(record, first)
    second = dataclasses.replace(first, requests=9, right=8, wrong=1)
    write_checkpoint(record, second)
    assert read_checkpoint(record) == second
    with record.open("a") as file:
        file.write(second.to_json()[:30])
    assert read_checkpoint(record) == second


@pytest.mark.parametrize("text", ["", "{}", "x\ny\n", '{"requests": true}'])
def test_another_file_is_not_taken_for_a_checkpoint(tmp_path: Path, text: str) -> None:
    record = tmp_path / "soak.jsonl"
    record.write_text(text)
    with pytest.raises(BadRequest):
        read_checkpoint(record)
