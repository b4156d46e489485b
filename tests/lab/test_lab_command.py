"""``p2pnode lab``: scenarios and sweeps from the command line, in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from p2pnode.cli import main
from p2pnode.cli.exits import FAILED, USAGE, WELL

SCENARIO = """
name = "two"
[client]
prompt_tokens = 4
max_tokens = 6
[[nodes]]
name = "a"
layers = "0-1"
count = {count}
[[nodes]]
name = "b"
layers = "2-3"
[[faults]]
kind = "kill"
hop = 0
token = 3
"""
OPTIONS = {
    "run": "--transport --home --json",
    "sweep": "--fault --hops --tokens --delay-ms --standby --no-standby --prompt-tokens --model "
    "--trials --quick --transport --home --json",
    "soak": "--minutes --home --json",
    "scale": "--nodes --seed --json",
}


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def in_memory(tmp_path: Path) -> list[str]:
    return ["--transport", "memory", "--home", str(tmp_path / "home")]


def scenario(folder: Path, count: int) -> str:
    file = folder / "two.toml"
    file.write_text(SCENARIO.format(count=count))
    return str(file)


@pytest.mark.parametrize("command", OPTIONS)
def test_a_command_offers_its_documented_options_and_no_others(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["lab", command, "--help"]) == (WELL, True)
    text = capsys.readouterr().out
    offered = {word.strip("[],/") for part in text.split() for word in part.split("/")}
    offered = {word for word in offered if word.startswith("--")}
    assert offered == {*OPTIONS[command].split(), "--help"}


def test_the_lab_says_what_it_offers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["lab", "--help"]) == (WELL, True)
    text = capsys.readouterr().out
    assert all(f"\n  {command} " in text for command in OPTIONS)
    assert "..." not in text.replace("COMMAND [ARGS]...", "")


def test_a_scenario_is_run_and_its_trial_is_printed(
    in_memory: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["lab", "run", scenario(tmp_path, 2), *in_memory, "--json"]) == (WELL, True)
    (trial,) = lines(capsys)
    assert (trial["scenario"], trial["transport"], trial["identical"]) == ("two", "memory", True)
    assert (trial["fault"], trial["hop"], trial["token"], trial["tokens"]) == ("kill", 0, 3, 6)


def test_people_read_whether_the_tokens_were_right_and_where_it_ran(
    in_memory: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["lab", "run", scenario(tmp_path, 2), *in_memory]) == (WELL, True)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "two: the right tokens (in memory, on virtual time)"
    assert "1 failovers, noticed after" in second


def test_a_text_that_is_not_right_is_exit_status_1(
    in_memory: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["lab", "run", scenario(tmp_path, 1), *in_memory]) == (FAILED, True)
    first, _ = capsys.readouterr().out.splitlines()
    assert first.startswith("two: failed after 3 tokens: NoChain: no live peer serves layers 0-1")


def test_a_sweep_ends_with_its_sum(
    in_memory: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["lab", "sweep", "--fault", "kill", "--tokens", "8", "--trials", "3", *in_memory]
    assert main.run([*arguments, "--json"]) == (WELL, True)
    *trials, summary = lines(capsys)
    assert [(each["event"], each["hop"]) for each in trials] == [("trial", n) for n in range(3)]
    counts = {name: summary[name] for name in ("trials", "identical", "failed", "hung")}
    assert counts == {"trials": 3, "identical": 3, "failed": 0, "hung": 0}
    assert summary["event"] == "summary"
    assert set(summary["stall_ms"]) == {"p50", "p95", "max"}
    assert summary["loop_ms"] == 60.0
    assert summary["detection_ms"] == 20.0
    assert (summary["fault"], summary["transport"]) == ("kill", "memory")
    assert main.run(arguments) == (WELL, True)
    assert "IDENTICAL" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "nothing.toml"], "BadRequest: nothing.toml cannot be read"),
        (["sweep", "--fault", "plague"], "BadRequest: 'plague' is no fault; write one of kill, "),
        (["sweep", "--fault", "kill", "--hops", "0"], "BadRequest: hops must be 1 to 16, not 0"),
        (
            ["sweep", "--fault", "kill", "--transport", "pigeons"],
            "BadRequest: 'pigeons' is no transport; write one of auto, namespaces, memory",
        ),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["lab", *arguments, "--home", str(tmp_path)]) == (FAILED, True)
    captured = capsys.readouterr()
    assert captured.err.startswith(expected)
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_sweep_without_a_fault_is_misused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["lab", "sweep"]) == (USAGE, True)
    assert capsys.readouterr().err.startswith("Usage:")
