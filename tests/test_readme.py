"""README's commands and code run as they stand; its two set-up blocks are tried by CI."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from p2pnode.cli.main import app
from tests.support.commands import ROOT, Command, environment, run

README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NODES = ("bootstrap", "serve")


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(README) if name == language]


def commands() -> list[list[str]]:
    """What README lets people type, without the leading ``p2pnode``."""
    lines = [line for block in blocks("console") for line in block.splitlines()]
    assert all(line.startswith("$ p2pnode ") for line in lines)
    return [shlex.split(line)[2:] for line in lines]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home in which the nodes that README starts by hand are running."""
    folder = tmp_path_factory.mktemp("home")
    with ExitStack() as nodes:
        started = [
            (arguments[0], nodes.enter_context(Command(*arguments, env=at_home(folder))))
            for arguments in commands()
            if arguments[0] in NODES
        ]
        for name, node in started:
            node.wait_for("listening" if name == "bootstrap" else "serving")
        yield folder


def at_home(home: Path) -> dict[str, str]:
    return environment(P2PNODE_HOME=str(home))


@pytest.mark.processes
@pytest.mark.parametrize(
    "arguments", [each for each in commands() if each[0] not in NODES], ids=" ".join
)
def test_a_command_of_readme_works_beside_its_nodes(arguments: list[str], home: Path) -> None:
    made = run(*arguments, env=at_home(home))
    assert made.returncode == 0, made.stderr
    assert len(made.stdout.strip()) > 20


@pytest.mark.processes
@pytest.mark.parametrize("code", blocks("python"))
def test_python_of_readme_works_beside_its_nodes(code: str, home: Path, tmp_path: Path) -> None:
    script = tmp_path / "readme.py"
    script.write_text(code)
    made = run(script=script, env=at_home(home))
    assert made.returncode == 0, made.stderr
    assert len(made.stdout.strip()) > 20


def test_readme_s_nodes_cover_the_built_in_model() -> None:
    served = [each[each.index("--layers") + 1] for each in commands() if each[0] == "serve"]
    assert served == ["0-8", "9-17", "18-26"]


def test_the_first_two_blocks_set_everything_up_each_alone() -> None:
    start, test = blocks("sh")
    for block in (start, test):
        assert block.splitlines()[:2] == ["python3 -m venv .venv", ". .venv/bin/activate"]
    assert start.splitlines()[-1] == "p2pnode demo"
    assert test.splitlines()[-1] == "pytest"


def test_readme_names_only_commands_and_options_that_exist(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = set(re.findall(r"--[a-z][a-z-]*", README))
    offered = set()
    commands = ["serve", "generate", "chat", "status", "demo", "bench", "bootstrap"]
    commands += ["lab run", "lab sweep", "lab soak", "lab scale"]
    commands += ["plan", "top", "service install", "service status", "service remove"]
    commands += ["gateway", "gateway keys add", "batch", "doctor"]
    commands += ["swarm create", "swarm invite", "swarm revoke", "swarm show"]
    for command in commands:
        app([*command.split(), "--help"], standalone_mode=False)
        offered |= set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    assert words <= offered


def test_readme_s_files_exist() -> None:
    names = re.findall(r"`([\w./-]+(?:\.md|\.txt|\.ci/run|/builtin))`", README)
    assert names
    assert [name for name in names if not os.path.exists(ROOT / name)] == []
