"""The examples run, against a real node where they need one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import ROOT, Command, environment, run

NEEDS_NODE = {"ten_lines.py", "chat.py", "batch.py"}
ALONE = {"three_stages.py", "private_swarm.py"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a node that serves the whole built-in model."""
    folder = tmp_path_factory.mktemp("home")
    arguments = ("--layers", "0-26", "--host", "127.0.0.1", "--home", str(folder))
    with Command("serve", *arguments) as node:
        node.wait_for("serving")
        yield folder


def printed(name: str, home: Path, *arguments: str) -> str:
    """Run an example to its end; returns what it printed."""
    script = ROOT / "examples" / name
    made = run(*arguments, script=script, env=environment(P2PNODE_HOME=str(home)))
    assert made.returncode == 0, made.stderr
    return made.stdout


@pytest.mark.processes
@pytest.mark.parametrize("name", sorted(NEEDS_NODE))
def test_an_example_gets_text_from_the_node_of_its_home(name: str, home: Path) -> None:
    assert len(printed(name, home).strip()) > 20


@pytest.mark.processes
def test_openai_s_package_gets_text_from_a_gateway(home: Path) -> None:
    arguments = ("--port", "0", "--home", str(home))
    with Command("gateway", *arguments) as gateway:
        url = gateway.wait_for("listening")["url"]
        assert len(printed("openai_client.py", home, url).strip()) > 20


@pytest.mark.processes
def test_a_friend_is_let_into_a_private_swarm_and_a_stranger_is_not(tmp_path: Path) -> None:
    friend, stranger = printed("private_swarm.py", tmp_path).splitlines()[-2:]
    assert friend.startswith("a friend: ") and len(friend) > 20
    assert stranger.startswith("a stranger: NotMember")


def test_three_stages_survive_a_death_and_name_the_layers_that_were_meant(tmp_path: Path) -> None:
    lines = printed("three_stages.py", tmp_path).splitlines()
    assert lines[-2].endswith("as the unsplit model: True")
    assert lines[-1].startswith("BadLayerRange: ")
    assert "54-79" in lines[-1]


def test_there_is_no_example_that_nobody_runs() -> None:
    names = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert names == NEEDS_NODE | ALONE | {"openai_client.py"}
