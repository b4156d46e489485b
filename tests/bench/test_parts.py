"""Benchmarks in parts: which row is the one of the goal, and what becomes of trouble."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pnode.bench import NAMES, run_bench
from p2pnode.bench.parts import Setup, at_each_delay, least, measured, most
from p2pnode.bench.result import Row
from p2pnode.errors import BadRequest
from p2pnode.lab.wan.namespaces import NoNamespaces


def setup(folder: Path, *, is_quick: bool = True) -> Setup:
    return Setup(note=lambda _: None, folder=folder, is_quick=is_quick)


@pytest.mark.parametrize(
    ("goal", "value", "met", "remark"),
    [
        (least(2.0), 1.9, False, "1.8 to 2.5; 40ms"),
        (most(2.0), 3.0, False, "2.9 to 3.1; 20ms"),
        (most(3.5), 3.0, True, "2.9 to 3.1; 20ms"),
    ],
)
def test_the_worse_delay_stands_for_the_metric(
    goal: object, value: float, met: bool, remark: str
) -> None:
    values = {20: [2.9, 3.0, 3.1], 40: [1.8, 1.9, 2.5]}
    rows = at_each_delay("gain", goal, values, "ratio", {20: 7.0, 40: 8.0})  # type: ignore[arg-type]
    assert [row.metric for row in rows] == ["gain", "gain_20ms", "gain_40ms"]
    assert (rows[0].value, rows[0].met, rows[0].spread) == (value, met, remark)
    assert [row.baseline for row in rows[1:]] == [7.0, 8.0]


async def test_a_part_that_cannot_be_measured_is_one_row_that_says_why(tmp_path: Path) -> None:
    async def rootless(_: Setup) -> list[Row]:
        raise NoNamespaces("network namespaces need root; run as root on Linux")

    async def well(_: Setup) -> list[Row]:
        return [least(1.0).row("well", [2.0], "ratio", 1.0)]

    lacking, other = await measured([("wan_8", rootless), ("well", well)], setup(tmp_path))
    assert (lacking.metric, lacking.value, lacking.met) == ("wan_8", None, False)
    assert lacking.spread.startswith("not measured: NoNamespaces: network namespaces need root")
    assert other.met


def test_at_least_five_rounds_are_run_unless_it_must_be_quick(tmp_path: Path) -> None:
    assert setup(tmp_path, is_quick=False).num_rounds >= 5
    assert 1 < setup(tmp_path).num_rounds < 5


async def test_what_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=", ".join(NAMES)):
        await run_bench("lights", lambda _: None)
    with pytest.raises(BadRequest, match="no quick form"):
        await run_bench("loopback", lambda _: None, is_quick=True)
    with pytest.raises(BadRequest, match="no plot"):
        await run_bench("wan", lambda _: None, plot=tmp_path / "plot.svg")
