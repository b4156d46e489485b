"""`p2pnode service`: one unit, which systemd takes; and what is asked of systemctl."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from p2pnode.cli import main
from p2pnode.cli.exits import FAILED, USAGE, WELL
from p2pnode.cli.output import Output
from p2pnode.cli.service_face import Systemd, install, make_unit, remove, show_status
from p2pnode.cli.unit import NAME, STATE, Unit, quoted
from p2pnode.errors import LocalError

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed"
)
LAYERS = ("--layers", "0-8")


def systemctl(folder: Path, *, status: int = 0) -> Systemd:
    """One that writes down what it is asked, and says ``active``."""
    script = folder / "systemctl"
    script.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\necho active\nexit {status}\n')
    script.chmod(0o755)
    return Systemd(is_system=False, folder=folder / "units", program=(str(script),))


def asked(folder: Path) -> list[str]:
    return (folder / "asked").read_text().splitlines()


def test_a_dry_run_prints_the_unit_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["service", "install", "--dry-run", "--home", str(tmp_path), "--", *LAYERS]
    assert main.run(arguments) == (WELL, True)
    text = capsys.readouterr().out
    assert "-m p2pnode serve --layers 0-8\n" in text
    assert f"Environment=P2PNODE_HOME={tmp_path}\n" in text
    assert "NoNewPrivileges=yes" in text
    assert [*tmp_path.iterdir()] == []
    assert main.run([*arguments[:3], "--json", *arguments[3:]]) == (WELL, True)
    assert json.loads(capsys.readouterr().out)["unit"].strip() == text.strip()


@pytest.mark.parametrize(
    "arguments",
    [[], ["--", "--layers", "8-0"], ["--", "--no-such-option"], ["--", *LAYERS, "--json"]],
)
def test_a_service_that_could_not_start_is_not_written(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["service", "install", "--dry-run", *arguments]) == (USAGE, True)
    assert capsys.readouterr().out == ""


def test_a_line_break_cannot_bring_a_line_of_its_own_into_a_unit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hostile = "x\nExecStartPre=/bin/evil"
    arguments = ["service", "install", "--dry-run", "--", *LAYERS, "--model", hostile]
    assert main.run(arguments) == (FAILED, True)
    assert "control characters" in capsys.readouterr().err


@needs_systemd
@pytest.mark.parametrize("is_system", [False, True])
def test_systemd_takes_the_unit(is_system: bool, tmp_path: Path) -> None:
    words = ("--layers", "0-8", "--model", '/models/a "b" \\ 100% $HOME;')
    unit = Unit(("/bin/true",), words, str(tmp_path / "a home"), is_system)
    file = tmp_path / NAME
    file.write_text(unit.render())
    made = subprocess.run(
        ["systemd-analyze", "verify", str(file)], capture_output=True, text=True, timeout=60
    )
    assert (made.returncode, made.stderr) == (0, "")


def test_words_are_quoted_so_that_systemd_reads_them_back() -> None:
    assert quoted("/ip4/1.2.3.4/tcp/4001") == "/ip4/1.2.3.4/tcp/4001"
    assert quoted("a b") == '"a b"'
    assert quoted('"$HOME" 5% \\') == '"\\"$$HOME\\" 5%% \\\\"'
    assert quoted("$X", expands=False) == '"$X"'
    assert quoted("") == '""'


def test_the_deployed_unit_is_the_one_that_is_installed() -> None:
    unit = Unit(("/opt/p2pnode/bin/p2pnode",), ("--layers", "0-26"), STATE, is_system=True)
    deployed = Path(__file__).parents[2] / "examples" / "deploy" / NAME
    assert deployed.read_text() == unit.render()


def test_installing_starts_it_and_removing_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    systemd, output = systemctl(tmp_path), Output(as_json=True)
    show_status(systemd, output)
    install(make_unit(LAYERS, home=tmp_path, is_system=False), systemd, output)
    assert asked(tmp_path) == [
        "--user daemon-reload",
        f"--user enable {NAME}",
        f"--user restart {NAME}",
    ]
    assert "serve --layers 0-8" in systemd.file.read_text()
    show_status(systemd, output)
    remove(systemd, output)
    remove(systemd, output)
    assert not systemd.file.exists()
    assert asked(tmp_path)[-2:] == [f"--user disable --now {NAME}", "--user daemon-reload"]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    before, _, during, first, again = lines
    assert (before["installed"], before["active"]) == (False, "inactive")
    assert (during["installed"], during["active"]) == (True, "active")
    assert (first["removed"], again["removed"]) == (True, False)


def test_a_systemd_that_refuses_or_is_not_there_is_an_error(tmp_path: Path) -> None:
    unit, output = make_unit(LAYERS, home=tmp_path, is_system=False), Output()
    with pytest.raises(LocalError, match="systemctl daemon-reload failed: active"):
        install(unit, systemctl(tmp_path, status=1), output)
    nobody = Systemd(is_system=False, folder=tmp_path, program=("/no/such/systemctl",))
    with pytest.raises(LocalError, match="systemd does not answer here"):
        install(unit, nobody, output)
    closed = Systemd(is_system=True, folder=tmp_path / "asked" / "units")
    with pytest.raises(LocalError, match="cannot write"):
        install(unit, closed, output)
