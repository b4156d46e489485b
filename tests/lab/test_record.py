"""Sweeps on disk: nothing is done twice, nothing is believed that another commit has done."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import pytest

from p2pnode.errors import BadRequest, DiskFull
from p2pnode.lab.record import Record, current_commit, latest_record, open_record, read_record
from p2pnode.lab.result import Trial
from tests.lab.test_result import TRIAL

SETTINGS: dict[str, Any] = {"fault": "kill", "hops": 3}


def trial(name: str) -> Trial:
    return dataclasses.replace(TRIAL, scenario=name)


def opened(folder: Path, commit: str = "abc123", **settings: Any) -> Record:
    return open_record(folder, "memory", commit, {**SETTINGS, **settings})


def test_what_was_done_is_known_when_the_same_sweep_is_opened_again(tmp_path: Path) -> None:
    record = opened(tmp_path)
    record.add(trial("a"))
    record.add(trial("b"))
    again = opened(tmp_path)
    assert again.trials == {"a": trial("a"), "b": trial("b")}
    again.add(trial("c"))
    assert list(opened(tmp_path).trials) == ["a", "b", "c"]


def test_another_commit_begins_anew(tmp_path: Path) -> None:
    opened(tmp_path).add(trial("a"))
    assert not opened(tmp_path, "def456").trials


@pytest.mark.parametrize("commit", ["unknown", "abc123-dirty"])
def test_code_that_no_commit_names_is_not_trusted_to_be_the_same(
    commit: str, tmp_path: Path
) -> None:
    opened(tmp_path, commit).add(trial("a"))
    assert not opened(tmp_path, commit).trials


def test_other_settings_begin_anew(tmp_path: Path) -> None:
    opened(tmp_path).add(trial("a"))
    assert not opened(tmp_path, hops=2).trials
    assert not open_record(tmp_path, "namespaces", "abc123", SETTINGS).trials


def test_a_line_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    record = opened(tmp_path)
    record.add(trial("a"))
    record.add(trial("b"))
    text = record.part.read_text()
    record.part.write_text(text[:-20])
    again = opened(tmp_path)
    assert list(again.trials) == ["a"]
    again.add(trial("b"))
    assert record.part.read_text() == text


def test_a_complete_sweep_is_kept_until_the_next_one_is_complete(tmp_path: Path) -> None:
    record = opened(tmp_path)
    record.add(trial("a"))
    record.complete()
    head, trials = read_record(record.file)
    assert (head["commit"], head["hops"], head["transport"]) == ("abc123", 3, "memory")
    assert trials == [trial("a")]
    following = opened(tmp_path)
    assert not following.trials
    following.add(trial("b"))
    assert read_record(record.file)[1] == [trial("a")]
    following.complete()
    assert read_record(record.file)[1] == [trial("b")]


def test_the_latest_complete_sweep_of_its_kind_is_found(tmp_path: Path) -> None:
    assert latest_record(tmp_path / "nowhere") is None
    for age_s, commit, hops in ((30, "old", 3), (20, "new", 3), (10, "newest", 2)):
        record = opened(tmp_path, commit, hops=hops)
        record.add(trial(commit))
        record.complete()
        at = time.time() - age_s
        os.utime(record.file, (at, at))
    opened(tmp_path, "running").add(trial("x"))
    (tmp_path / "odd.jsonl").write_text("nonsense")
    found = latest_record(tmp_path, hops=3, transport="memory")
    assert found is not None
    _, head, trials = found
    assert (head["commit"], trials) == ("new", [trial("new")])
    assert latest_record(tmp_path, hops=4) is None


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    odd = tmp_path / "odd.jsonl"
    for text in ("", "nonsense", "[]"):
        odd.write_text(text)
        with pytest.raises(BadRequest, match=r"odd.jsonl is no record of a sweep; remove it"):
            read_record(odd)


def test_a_place_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    record = open_record(tmp_path / "file", "memory", "abc123", SETTINGS)
    with pytest.raises(DiskFull, match="make room, or name another --home"):
        record.add(trial("a"))


def test_a_folder_that_is_no_checkout_has_no_commit(tmp_path: Path) -> None:
    assert current_commit(tmp_path) == "unknown"
