"""What a shell is told when somebody presses Tab."""

from __future__ import annotations

import subprocess
import sys

import pytest

from p2pnode.cli import main
from p2pnode.cli.completion import VARIABLE
from p2pnode.cli.exits import USAGE, WELL
from tests.support.commands import environment


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_a_script_for_our_name(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["completion", shell]) == (WELL, True)
    text = capsys.readouterr().out
    assert VARIABLE in text
    assert "p2pnode" in text


def test_another_shell_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["completion", "tcsh"]) == (USAGE, True)
    assert "tcsh" in capsys.readouterr().err


def test_commands_and_options_are_completed() -> None:
    def complete(words: str, number: int) -> list[str]:
        made = subprocess.run(
            [sys.executable, "-m", "p2pnode"],
            capture_output=True,
            text=True,
            env=environment(
                **{VARIABLE: "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(number)}
            ),
        )
        return made.stdout.split()

    assert complete("p2pnode se", 1) == ["serve", "service"]
    assert "--layers" in complete("p2pnode serve --la", 2)
