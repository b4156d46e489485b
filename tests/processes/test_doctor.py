"""``p2pnode doctor`` on real processes: a swarm that works, one whose node was killed, and none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import run
from tests.support.swarms import served, short_home

pytestmark = pytest.mark.processes

ANSWERS_WITHIN_S = 15.0
"""By its own clock, which begins when everything is imported."""
IS_FAST = {"none", "slow_device", "overloaded"}
"""What a healthy swarm may be called on a machine whose cores others use at the same time."""


def doctor(home: Path, *options: str, cwd: Path) -> dict[str, Any]:
    made = run("doctor", "--json", "--home", str(home), *options, cwd=cwd)
    assert made.returncode == 0, made.stderr
    (line,) = made.stdout.splitlines()
    told: dict[str, Any] = json.loads(line)
    assert told["doctor_s"] < ANSWERS_WITHIN_S
    return told


def grades(told: dict[str, Any], name: str) -> list[str]:
    return [check["grade"] for check in told["checks"] if check["name"] == name]


def test_without_any_swarm_there_is_an_answer(tmp_path: Path) -> None:
    (tmp_path / "bootstrap_peers.txt").write_text("")
    with short_home() as home:
        told = doctor(home, cwd=tmp_path)
    assert (told["cause"], told["peer"], told["chain"]) == ("discovery", None, None)
    assert told["evidence"]  # which one depends on how busy this machine is
    assert told["remedy"]
    assert grades(told, "disk") != ["bad"]


def test_a_swarm_that_works_and_then_one_whose_node_was_killed(tmp_path: Path) -> None:
    with short_home() as home, served(home, "0-13", "14-26") as nodes:
        address = nodes[0].address
        told = doctor(home, "--join", address, cwd=tmp_path)
        assert told["cause"] in IS_FAST, told
        assert [hop["peer"] for hop in told["chain"]["hops"]] == [node.peer for node in nodes]
        assert all(hop["compute_s"] > 0 for hop in told["chain"]["hops"])
        assert grades(told, "bootstrap") == ["ok"]
        assert grades(told, "clock") == grades(told, "directory") == ["ok"]
        assert {peer["liveness"] for peer in told["peers"]} == {"alive"}
        nodes[1].kill()
        told = doctor(home, "--join", address, cwd=tmp_path)
        assert (told["cause"], told["peer"]) == ("node_failing", nodes[1].peer), told
