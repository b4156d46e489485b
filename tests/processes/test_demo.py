"""The demo: what it claims is true, and nothing of it is left."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.commands import Command, environment, json_lines, run

pytestmark = pytest.mark.processes


def left_over(marker: str) -> list[psutil.Process]:
    """Processes that have a word on their command line."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(marker in word for word in process.info["cmdline"] or ())
    ]


@pytest.fixture
def place() -> Iterator[Path]:
    """A temporary folder with a short name, so that sockets find room in it, too."""
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        yield Path(name)


def test_a_node_dies_in_mid_sentence_and_the_story_goes_on_unchanged(place: Path) -> None:
    made = run("demo", "--json", env=environment(TMPDIR=str(place)))
    assert made.returncode == 0, made.stderr
    events = json_lines(made.stdout)
    result = events[-1]
    assert result["event"] == "result"
    assert result["identical"] is True
    # One is its death. Where other work holds nodes up, some give way to their standby besides;
    # of several between two tokens only the last chain is told.
    assert result["failovers"] >= sum(e["event"] == "chain" for e in events) - 1 >= 1
    assert result["stall_s"] > 0
    assert result["tokens_per_s"] > 0
    before = [hop["peer"] for hop in result["chain_before"]]
    after = [hop["peer"] for hop in result["chain_after"]]
    assert before[1] == result["killed_peer"]
    assert result["killed_peer"] not in after
    assert [before[0], before[2]] == [after[0], after[2]]
    layers = [hop["layers"] for hop in result["chain_after"]]
    assert layers == ["0-8", "9-17", "18-26"]
    assert result["text"].startswith("".join(e["text"] for e in events if e["event"] == "token"))
    assert list(place.iterdir()) == []
    assert left_over(str(place)) == []


def test_ctrl_c_ends_all_that_the_demo_has_started(place: Path) -> None:
    with Command("demo", env=environment(TMPDIR=str(place))) as demo:
        demo.wait_for("ready")
        assert left_over(str(place))
        assert demo.end(signal.SIGINT) == 130
    assert left_over(str(place)) == []
    assert list(place.iterdir()) == []
