"""Nodes of one network that nobody has introduced."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import Command, run

pytestmark = pytest.mark.processes


def arguments(home: Path, *more: str) -> tuple[str, ...]:
    return ("bootstrap", "--host", "127.0.0.1", "--home", str(home), *more)


def test_two_homes_find_each_other_where_they_look_around_and_only_there(tmp_path: Path) -> None:
    with Command(*arguments(tmp_path / "one", "--lan")) as one:
        assert one.wait_for("listening")["founded"]
        with Command(*arguments(tmp_path / "two", "--lan")) as two:
            assert not two.wait_for("listening")["founded"]
        with Command(*arguments(tmp_path / "three")) as three:
            assert three.wait_for("listening")["founded"]


def test_a_private_swarm_is_not_shown(tmp_path: Path) -> None:
    home = str(tmp_path)
    assert run("swarm", "create", "club", "--home", home).returncode == 0
    made = run(*arguments(tmp_path, "--lan", "--invite", "club"))
    assert made.returncode == 1
    assert "leave out --lan" in made.stderr
