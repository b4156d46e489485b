"""Rows beside those of an earlier run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2pnode.bench.compare import change, read_earlier
from p2pnode.errors import BadRequest


def written(folder: Path, *lines: object) -> Path:
    file = folder / "earlier.json"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return file


def test_values_come_from_the_last_result(tmp_path: Path) -> None:
    old = {"event": "result", "rows": [{"metric": "a", "value": 1.0}]}
    rows = [{"metric": "a", "value": 2.0}, {"metric": "b", "value": None}, {"metric": 3}]
    file = written(tmp_path, old, {"event": "result", "rows": rows}, {"event": "other"})
    assert read_earlier(file) == {"a": 2.0}


def test_changes_are_shares_of_the_earlier_value() -> None:
    earlier = {"a": 2.0, "b": 0.0, "c": 1.0}
    assert change({"metric": "a", "value": 2.5}, earlier) == (2.0, "+25.0 %")
    assert change({"metric": "b", "value": 1.5}, earlier) == (0.0, "+1.5")
    assert change({"metric": "c", "value": None}, earlier) == (1.0, "not measured")
    assert change({"metric": "d", "value": 1.0}, earlier) == (None, "new")


@pytest.mark.parametrize("content", ["", "no json", "[1, 2]", '{"rows": 3}'])
def test_a_file_without_a_result_is_refused_with_the_way_to_make_one(
    content: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text(content)
    with pytest.raises(BadRequest, match="p2pnode bench NAME --json"):
        read_earlier(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"missing\.json: No such file"):
        read_earlier(tmp_path / "missing.json")
