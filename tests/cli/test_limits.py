"""How a volunteer says what they allow."""

from __future__ import annotations

from datetime import time

import pytest
import typer

from p2pnode.cli import main
from p2pnode.cli.exits import USAGE
from p2pnode.cli.options import clock_time, size_bytes


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("6GB", 6_000_000_000),
        ("6 GB", 6_000_000_000),
        ("1.5GiB", 3 << 29),
        ("500MB", 500_000_000),
        ("64kB", 64_000),
        ("1TiB", 1 << 40),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, num_bytes: int) -> None:
    assert size_bytes(text) == num_bytes


@pytest.mark.parametrize("text", ["6", "GB", "-6GB", "6gb", "1e3GB", "0GB", "6GBB", "", "9" * 40])
def test_what_is_no_size_is_a_usage_error(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a size like 6GB"):
        size_bytes(text)


@pytest.mark.parametrize(("text", "at"), [("23:30", time(23, 30)), ("7:05", time(7, 5))])
def test_times_of_day_are_read(text: str, at: time) -> None:
    assert clock_time(text) == at


@pytest.mark.parametrize("text", ["24:00", "7", "7:5", "07:60", "7:05pm", "-1:00", ""])
def test_what_is_no_time_of_day_is_a_usage_error(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a time like 23:30"):
        clock_time(text)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--until", "noon"),
        ("--max-sessions", "0"),
        ("--quant", "int4"),
        ("--vram", "much"),
        ("--uplink", "0"),
        ("--uplink", "fast"),
    ],
)
def test_a_bad_limit_is_one_line(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _ = main.run(["serve", "--layers", "0-8", option, value])
    assert status == USAGE
    assert len([line for line in capsys.readouterr().err.splitlines() if option in line]) == 1
