"""A batch that is killed in the middle of it, as its user meets it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Command
from tests.support.swarms import served, short_home

pytestmark = pytest.mark.processes

MODEL = "stories-27"
NUM_JOBS = 24


def requests(file: Path) -> Path:
    """Prompts of different lengths, so that answers come in no order."""
    with file.open("w") as out:
        for number in range(NUM_JOBS):
            body = {"model": MODEL, "prompt": "Once " * (1 + number % 5), "max_tokens": 12}
            body["temperature"] = 0
            job = {"custom_id": f"job-{number}", "method": "POST", "url": "/v1/completions"}
            out.write(json.dumps({**job, "body": body}) + "\n")
    return file


def texts(file: Path) -> dict[str, str]:
    """What each job was answered; no job has two answers."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
    found = {line["custom_id"]: line["response"]["body"]["choices"][0]["text"] for line in lines}
    assert len(found) == len(lines)
    return found


def test_a_batch_that_is_killed_goes_on_with_nothing_lost_or_twice(tmp_path: Path) -> None:
    asked = requests(tmp_path / "in.jsonl")
    killed, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    with short_home() as home, served(home, "0-26") as (node,):
        options = ("--join", node.address, "--home", str(home))
        with Command("batch", str(asked), str(killed), *options) as batch:
            while (said := batch.wait_for("progress")["done"]) < 3:
                pass
            batch.end(signal.SIGKILL)
        # What it had said is on the disk; the last line may be half a line.
        assert said <= killed.read_bytes().count(b"\n") < NUM_JOBS
        for file in (killed, whole):
            with Command("batch", str(asked), str(file), *options) as batch:
                assert batch.process.wait(120) == 0
    assert texts(killed) == texts(whole)
    assert len(texts(whole)) == NUM_JOBS
